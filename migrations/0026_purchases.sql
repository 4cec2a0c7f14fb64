-- Purchases: what was paid for a game, who owns it, and its refund.

create table game_purchase (
    id bigint generated always as identity,
    at timestamptz not null default clock_timestamp(),
    refunded_at timestamptz,
    game bigint not null,
    buyer bigint not null,
    -- The buyer, or whom the game was given to.
    recipient bigint not null,
    -- Null is the house.
    publisher bigint,
    -- The stock that the copy is from.
    stock bigint,
    -- The transfer that paid it; null for a free game.
    transfer bigint,
    -- The transfer of the refund.
    refund bigint,
    -- In minor units. The publisher got the price less tax and fee.
    price bigint not null,
    tax bigint not null,
    fee bigint not null,
    -- Hundredths of a percent.
    tax_rate int not null,
    fee_rate int not null,
    currency text not null,
    -- Of a free game: the key of a paid one is in the book.
    key_hash uuid,
    content_hash uuid,
    constraint game_purchase_pkey primary key (id),
    constraint game_purchase_transfer unique (transfer),
    constraint game_purchase_key unique (key_hash),
    constraint game_purchase_amounts check (0 <= tax and 0 <= fee and tax + fee <= price),
    constraint game_purchase_paid check ((transfer is null) = (price = 0))
);

-- A user owns a game once.
create unique index game_purchase_owned on game_purchase (game, recipient) where refunded_at is null;
create index game_purchase_publisher on game_purchase (publisher, currency, id) where publisher is not null;

-- The games that users own now.
create table entitlement (
    game bigint not null,
    app_user bigint not null,
    at timestamptz not null default clock_timestamp(),
    constraint entitlement_pkey primary key (game, app_user)
);

create index entitlement_user on entitlement (app_user, game);

-- Claims numbers of stocks, in ascending order, for rows of n and stock. Returns the n that got one.
create function claim_stock(p_n int[], p_stock bigint[]) returns int[]
language sql as $$
    with wanted as (
        select n, stock, row_number() over (partition by stock order by n) as place
        from unnest(p_n, p_stock) as t (n, stock)
    ), room as (
        select id as stock,
            coalesce((select number from stock_claim c where c.stock = s.id order by number desc limit 1), 0) as claimed,
            s.quantity + coalesce((select number from stock_return r where r.stock = s.id order by number desc limit 1), 0)
                as number_max
        from stock s where s.id = any (p_stock)
    ), numbered as (
        select n, stock, claimed + place as number from wanted join room using (stock) where claimed + place <= number_max
    ), claimed as (
        insert into stock_claim (stock, number)
        select stock, number from numbered order by stock, number
        on conflict do nothing
        returning stock, number
    )
    select coalesce(array_agg(n), '{}') from numbered join claimed using (stock, number)
$$;

-- Grants games and records their purchases. Returns the rows that took effect: those of a game whose revision is still the
-- one that the price is from, whose recipient does not own it but owns its base, and for which a copy is left.
--
-- Runs in the transaction of the money, or in one of its own for a free game. Every transaction takes its locks in the same
-- order: games, entitlements, stocks.
create function claim_purchases(p_rows json) returns setof int
language plpgsql
set search_path = public, pg_temp
as $$
declare
    v_granted int[];
    v_limited int[];
    v_stock bigint[];
    v_claimed int[];
begin
    -- The deletion of a game and a refund of a base wait for this transaction, or it waits for them.
    perform from game g
    where g.id in (select i.game from json_to_recordset(p_rows) as i (game bigint))
    order by g.id for key share;
    perform from entitlement e
    where (e.game, e.app_user) in (
        select g.base, i.recipient
        from json_to_recordset(p_rows) as i (game bigint, recipient bigint)
        join game g on g.id = i.game and g.base is not null
    )
    order by e.game, e.app_user for key share;

    with input as (
        select distinct on (i.game, i.recipient) i.n, i.game, i.recipient
        from json_to_recordset(p_rows) as i (n int, game bigint, recipient bigint, revision int)
        join game g on g.id = i.game and g.revision = i.revision and g.state = 'published'
        where g.base is null or exists (select from entitlement e where e.game = g.base and e.app_user = i.recipient)
        order by i.game, i.recipient, i.n
    ), granted as (
        insert into entitlement (game, app_user)
        select game, recipient from input order by game, recipient
        on conflict do nothing
        returning game, app_user
    )
    select coalesce(array_agg(n), '{}') into v_granted
    from input i join granted g on g.game = i.game and g.app_user = i.recipient;

    select coalesce(array_agg(i.n), '{}'), coalesce(array_agg(g.stock), '{}') into v_limited, v_stock
    from json_to_recordset(p_rows) as i (n int, game bigint)
    join game g on g.id = i.game
    where i.n = any (v_granted) and g.stock is not null;
    if v_limited <> '{}' then
        v_claimed := claim_stock(v_limited, v_stock);
        select coalesce(array_agg(n), '{}') into v_granted
        from unnest(v_granted) n
        where n <> all (v_limited) or n = any (v_claimed);
    end if;

    with input as (
        select * from json_to_recordset(p_rows) as i (
            n int, seq bigint, game bigint, buyer bigint, recipient bigint, publisher bigint, price bigint, tax bigint,
            fee bigint, tax_rate int, fee_rate int, currency text, key_hash uuid, content_hash uuid)
        where i.n = any (v_granted)
    ), done as (
        insert into game_purchase (
            game, buyer, recipient, publisher, stock, transfer, price, tax, fee, tax_rate, fee_rate, currency, key_hash,
            content_hash)
        select i.game, i.buyer, i.recipient, i.publisher, g.stock, i.seq, i.price, i.tax, i.fee, i.tax_rate, i.fee_rate,
            i.currency, i.key_hash, i.content_hash
        from input i join game g on g.id = i.game
        on conflict do nothing
        returning game, recipient
    )
    select coalesce(array_agg(i.n), '{}') into v_granted from input i join done using (game, recipient);

    insert into ledger.event (book, topic, trace_id, body)
    select 1, 'game_updates', i.trace, json_build_object(
        'type', 'entitlement.granted',
        'data', json_build_object('gameId', i.game, 'userId', i.recipient::text),
        'player', i.recipient::text,
        'audience', json_build_object('owner', i.recipient))
    from json_to_recordset(p_rows) as i (n int, game bigint, recipient bigint, trace uuid)
    where i.n = any (v_granted)
    order by i.n;
    perform pg_notify('event', '1');
    return query select unnest(v_granted);
end
$$;

-- Takes purchases back. Returns the rows that took effect: those whose purchase was not refunded before and is young enough,
-- and whose owner keeps no downloadable content of the game. A row without a purchase only takes the game away.
create function revert_purchases(p_rows json) returns setof int
language plpgsql
set search_path = public, pg_temp
as $$
declare
    v_reverted int[];
begin
    with input as (
        select distinct on (i.game, i.recipient) i.*
        from json_to_recordset(p_rows) as i (n int, game bigint, recipient bigint, purchase bigint, seconds float8)
        order by i.game, i.recipient, i.n
    ), owned as (
        select e.game, e.app_user from entitlement e
        join input i on i.game = e.game and i.recipient = e.app_user
        order by e.game, e.app_user for update of e
    ), removed as (
        delete from entitlement e using owned o where e.game = o.game and e.app_user = o.app_user
        returning e.game, e.app_user
    )
    select coalesce(array_agg(i.n), '{}') into v_reverted
    from input i join removed r on r.game = i.game and r.app_user = i.recipient;

    -- A new statement sees what was granted while this one waited.
    with input as (
        select * from json_to_recordset(p_rows) as i (
            n int, seq bigint, first int, game bigint, recipient bigint, purchase bigint, seconds float8)
        where i.n = any (v_reverted)
    ), refunded as (
        update game_purchase p
        set refunded_at = clock_timestamp(), refund = case when p.price > 0 then i.seq + i.first end
        from input i
        where p.id = i.purchase and p.refunded_at is null and p.game = i.game and p.recipient = i.recipient
            and p.at > clock_timestamp() - make_interval(secs => i.seconds)
        returning i.n, p.stock
    ), room as (
        select n, stock, row_number() over (partition by stock order by n)
            + coalesce((select number from stock_return r where r.stock = f.stock order by number desc limit 1), 0) as number
        from refunded f where stock is not null
    ), returned as (
        insert into stock_return (stock, number)
        select stock, number from room order by stock, number
        on conflict do nothing
        returning stock, number
    )
    select coalesce(array_agg(i.n), '{}') into v_reverted
    from input i
    left join refunded f using (n)
    left join room using (n)
    left join returned r on r.stock = room.stock and r.number = room.number
    where (i.purchase is null or f.n is not null) and (f.stock is null or r.stock is not null)
        and not exists (
            select from game d join entitlement e on e.game = d.id and e.app_user = i.recipient where d.base = i.game
        );

    insert into ledger.event (book, topic, trace_id, body)
    select 1, 'game_updates', i.trace, json_build_object(
        'type', 'entitlement.revoked',
        'data', json_build_object('gameId', i.game, 'userId', i.recipient::text),
        'player', i.recipient::text,
        'audience', json_build_object('owner', i.recipient))
    from json_to_recordset(p_rows) as i (n int, game bigint, recipient bigint, trace uuid)
    where i.n = any (v_reverted)
    order by i.n;
    perform pg_notify('event', '1');
    return query select unnest(v_reverted);
end
$$;
