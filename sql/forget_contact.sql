-- `forget`: the rows of $1, a contact or null, and of the addresses $2, in lower case; answers how many there
-- were. A transaction of its own, which locks nothing of the lock order; who else deletes several of these
-- rows at once may be its victim, or it theirs, and then it is tried again.
WITH gone AS (
    DELETE FROM imported_contacts c WHERE c.id = $1::uuid OR lower(c.email) = ANY ($2::text[]) RETURNING 1
), cached AS (
    DELETE FROM enrichment_cache c
     WHERE lower(c.contact_email) = ANY ($2::text[]) OR lower(c.key) = ANY ($2::text[]) RETURNING 1
)
SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM cached)
