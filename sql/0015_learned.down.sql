DROP FUNCTION learn_v1;
DROP TABLE learned_secrets;
