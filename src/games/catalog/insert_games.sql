with input as (
    -- Rows are inserted, and so numbered, in the order of n.
    select *, count(copies) over (order by n) as limited
    from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::bigint[], $8::text[],
        $9::bigint[], $10::bigint[], $11::uuid[], $12::uuid[])
        with ordinality t (title, genre, description, words, price, currency, publisher, state, base, copies, key_hash,
            content_hash, n)
), stocked as (
    insert into stock (quantity) select copies::int from input where copies is not null order by n
    returning id
), stocks as (
    select id, row_number() over (order by id) as limited from stocked
), added as (
    insert into game (
        title, genre, description, words, price, currency, publisher, state, base, stock, key_hash, content_hash)
    select title, genre, description, words, price, currency, publisher, state, base, s.id, key_hash, content_hash
    from input i left join stocks s on s.limited = i.limited and i.copies is not null
    order by n
    on conflict (key_hash) do nothing
    returning id
), games as (
    select id, row_number() over (order by id) as n from added
), priced as (
    insert into game_price (game, currency, price)
    select g.id, p.currency, p.price
    from unnest($13::bigint[], $14::text[], $15::bigint[]) p (n, currency, price) join games g using (n)
)
select id as "id: GameId" from games order by n
