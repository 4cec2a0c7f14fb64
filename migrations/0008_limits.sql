-- Attempts are forgotten little by little: as many as are free in so many seconds, one by one.

create function attempts_remembered(count int, last_at timestamptz, free int, seconds float8) returns int
language sql stable as $$
    select greatest(0, count - floor(extract(epoch from now() - last_at)::float8 * free / seconds)::int)
$$;
