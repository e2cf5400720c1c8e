"""What bench/run is made of: rows (what is measured, and the targets), world (what runs), peers, extras
(figures beside the rows), result (ratios and tables), plots."""
