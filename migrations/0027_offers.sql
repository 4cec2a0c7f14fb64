-- Sales, discount codes and activation keys; and what a review of purchases asked for.

alter table stock_claim alter column number type bigint;
alter table stock_return alter column number type bigint;

create or replace function stock_left(p_stock bigint) returns int
language sql stable as $$
    select least(quantity
        + coalesce((select number from stock_return where stock = id order by number desc limit 1), 0)
        - coalesce((select number from stock_claim where stock = id order by number desc limit 1), 0), 2147483647)::int
    from stock where id = p_stock
$$;

-- The words of a search are those that the program splits and lowers, whatever the locale of the database.
drop index game_search;
alter table game drop column search;
alter table game add column words text not null default '';
update game set words = lower(regexp_replace(title || ' ' || genre || ' ' || description, '[!-/:-@[-`{-~]+', ' ', 'g'));
alter table game add column search tsvector not null generated always as (to_tsvector('simple', words)) stored;
create index game_search on game using gin (search) where state = 'published';

-- A price for a window of time, which the clock of the database decides.
create table game_sale (
    id bigint generated always as identity,
    game bigint not null,
    starts_at timestamptz not null,
    ends_at timestamptz not null,
    -- How many copies have the price; null without a limit.
    stock bigint,
    -- In minor units of the currency, or hundredths of a percent off each price.
    price bigint,
    percent int,
    currency text,
    name text not null,
    constraint game_sale_pkey primary key (id),
    constraint game_sale_game_fkey foreign key (game) references game (id),
    constraint game_sale_stock_fkey foreign key (stock) references stock (id),
    constraint game_sale_name unique (game, name),
    constraint game_sale_window check (starts_at < ends_at),
    constraint game_sale_price check (0 <= price),
    constraint game_sale_percent check (0 < percent and percent <= 10000),
    constraint game_sale_kind check (
        (percent is null) <> (price is null) and (price is null) = (currency is null)
    )
);

create index game_sale_window on game_sale (starts_at, ends_at);

create table discount_code (
    id bigint generated always as identity,
    created_at timestamptz not null default now(),
    starts_at timestamptz,
    ends_at timestamptz,
    -- Games of this publisher, or this game; null is any.
    publisher bigint,
    game bigint,
    -- Uses in all; null without a limit.
    stock bigint,
    amount bigint,
    percent int,
    uses_per_user int,
    currency text,
    -- In capitals.
    code text not null,
    key_hash uuid,
    content_hash uuid,
    constraint discount_code_pkey primary key (id),
    constraint discount_code_publisher_fkey foreign key (publisher) references publisher (id),
    constraint discount_code_game_fkey foreign key (game) references game (id),
    constraint discount_code_stock_fkey foreign key (stock) references stock (id),
    constraint discount_code_code unique (code),
    constraint discount_code_key unique (key_hash),
    constraint discount_code_window check (starts_at < ends_at),
    constraint discount_code_amount check (0 < amount),
    constraint discount_code_percent check (0 < percent and percent <= 10000),
    constraint discount_code_uses check (0 < uses_per_user),
    constraint discount_code_kind check (
        (percent is null) <> (amount is null) and (amount is null) = (currency is null)
    )
);

-- The uses of a code by a user, where they are limited.
create table discount_code_use (
    code bigint not null,
    app_user bigint not null,
    number int not null,
    constraint discount_code_use_pkey primary key (code, app_user, number)
);

-- Keys that were made by one request.
create table key_batch (
    id bigint generated always as identity,
    created_at timestamptz not null default now(),
    game bigint not null,
    caller text not null,
    key_hash uuid,
    content_hash uuid,
    constraint key_batch_pkey primary key (id),
    constraint key_batch_game_fkey foreign key (game) references game (id),
    constraint key_batch_key unique (key_hash)
);

create index key_batch_game on key_batch (game);

create table activation_key (
    id bigint generated always as identity,
    batch bigint not null,
    redeemed_at timestamptz,
    redeemed_by bigint,
    -- SHA-256 of the key.
    hash bytea not null,
    constraint activation_key_pkey primary key (id),
    constraint activation_key_batch_fkey foreign key (batch) references key_batch (id),
    constraint activation_key_hash unique (hash),
    constraint activation_key_redeemed check ((redeemed_at is null) = (redeemed_by is null))
);

create index activation_key_batch on activation_key (batch, id);

-- The stocks that a purchase took a number of: copies, the budget of a sale, uses of a code.
alter table game_purchase
    add column stocks bigint[] not null default '{}',
    -- When it was taken away without money: content whose base was refunded.
    add column revoked_at timestamptz,
    -- The key of the refund.
    add column refund_key uuid,
    add column refund_content uuid,
    add column sale bigint,
    add column code bigint,
    -- Which of the user's uses of the code it was.
    add column code_use int;
update game_purchase set stocks = array[stock] where stock is not null;
alter table game_purchase
    drop column stock,
    add constraint game_purchase_refund_key unique (refund_key);
drop index game_purchase_owned;
create unique index game_purchase_owned on game_purchase (game, recipient)
    where refunded_at is null and revoked_at is null;
create index game_purchase_game on game_purchase (game);

-- The end of the moment at which the prices of a game are what they are now: the next beginning or end of a sale.
create function sale_moment(p_game bigint, p_now timestamptz) returns timestamptz
language sql stable as $$
    select min(moment)
    from game_sale s cross join lateral unnest(array[s.starts_at, s.ends_at]) moment
    where s.game = p_game and p_now < moment
$$;

-- The sale that holds: of those that run and have copies left, the one with the lowest price below the usual one.
create function running_sale(p_game bigint, p_price bigint, p_currency text, p_now timestamptz)
returns table (sale bigint, price bigint, stock bigint, starts_at timestamptz, ends_at timestamptz)
language sql stable as $$
    select * from (
        select s.id,
            case when s.percent is null then s.price
                else p_price - floor(p_price::numeric * s.percent / 10000 + 0.5)::bigint end as sale_price,
            s.stock, s.starts_at, s.ends_at
        from game_sale s
        where s.game = p_game and s.starts_at <= p_now and p_now < s.ends_at
            and (s.currency is null or s.currency = p_currency)
            and (s.stock is null or 0 < stock_left(s.stock))
    ) running
    where sale_price < p_price
    order by sale_price, id limit 1
$$;

-- Claims of several stocks each: the n that got a number of every stock they want.
create or replace function claim_stock(p_n int[], p_stock bigint[]) returns int[]
language sql as $$
    with wanted as (
        select n, stock, row_number() over (partition by stock order by n) as place
        from unnest(p_n, p_stock) as t (n, stock)
    ), room as (
        select id as stock,
            coalesce((select number from stock_claim c where c.stock = s.id order by number desc limit 1), 0) as claimed,
            s.quantity::bigint + coalesce((select number from stock_return r where r.stock = s.id order by number desc limit 1), 0)
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
    select coalesce(array_agg(n), '{}')
    from (
        select w.n from wanted w
        left join numbered using (n, stock)
        left join claimed using (stock, number)
        group by w.n having count(*) = count(claimed.stock)
    ) whole
$$;

create or replace function claim_purchases(p_rows json) returns setof int
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
        from json_to_recordset(p_rows) as i (
            n int, game bigint, recipient bigint, revision int, until timestamptz, own_fee int)
        join game g on g.id = i.game and g.revision = i.revision and g.state = 'published'
        left join publisher b on b.id = g.publisher
        where b.fee is not distinct from i.own_fee and (i.until is null or clock_timestamp() < i.until)
            and (g.base is null or exists (select from entitlement e where e.game = g.base and e.app_user = i.recipient))
        order by i.game, i.recipient, i.n
    ), granted as (
        insert into entitlement (game, app_user)
        select game, recipient from input order by game, recipient
        on conflict do nothing
        returning game, app_user
    )
    select coalesce(array_agg(n), '{}') into v_granted
    from input i join granted g on g.game = i.game and g.app_user = i.recipient;

    select coalesce(array_agg(i.n), '{}'), coalesce(array_agg(s.stock), '{}') into v_limited, v_stock
    from json_to_recordset(p_rows) as i (n int, stocks json)
    cross join lateral (select value::bigint as stock from json_array_elements_text(i.stocks)) s
    where i.n = any (v_granted);
    if v_limited <> '{}' then
        v_claimed := claim_stock(v_limited, v_stock);
        select coalesce(array_agg(n), '{}') into v_granted
        from unnest(v_granted) n
        where n <> all (v_limited) or n = any (v_claimed);
    end if;

    -- Of two uses of a code with the same number one is inserted.
    v_limited := array(
        select i.n from json_to_recordset(p_rows) as i (n int, code_use int)
        where i.n = any (v_granted) and i.code_use is not null
    );
    if v_limited <> '{}' then
        with input as (
            select distinct on (i.code, i.buyer, i.code_use) i.*
            from json_to_recordset(p_rows) as i (n int, buyer bigint, code bigint, code_use int)
            where i.n = any (v_limited)
            order by i.code, i.buyer, i.code_use, i.n
        ), used as (
            insert into discount_code_use (code, app_user, number)
            select code, buyer, code_use from input order by code, buyer, code_use
            on conflict do nothing
            returning code, app_user, number
        )
        select coalesce(array_agg(i.n), '{}') into v_claimed
        from input i join used u on u.code = i.code and u.app_user = i.buyer and u.number = i.code_use;
        select coalesce(array_agg(n), '{}') into v_granted
        from unnest(v_granted) n
        where n <> all (v_limited) or n = any (v_claimed);
    end if;

    with input as (
        select * from json_to_recordset(p_rows) as i (
            n int, seq bigint, game bigint, buyer bigint, recipient bigint, publisher bigint, stocks json, sale bigint,
            code bigint, code_use int, price bigint, tax bigint, fee bigint, tax_rate int, fee_rate int, currency text,
            key_hash uuid, content_hash uuid)
        where i.n = any (v_granted)
    ), done as (
        insert into game_purchase (
            game, buyer, recipient, publisher, stocks, sale, code, code_use, transfer, price, tax, fee, tax_rate, fee_rate,
            currency, key_hash, content_hash)
        select i.game, i.buyer, i.recipient, i.publisher,
            array(select value::bigint from json_array_elements_text(i.stocks)),
            i.sale, i.code, i.code_use, i.seq, i.price, i.tax, i.fee, i.tax_rate, i.fee_rate, i.currency, i.key_hash,
            i.content_hash
        from input i
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

create or replace function revert_purchases(p_rows json) returns setof int
language plpgsql
set search_path = public, pg_temp
as $$
declare
    v_reverted int[];
begin
    with input as (
        select distinct on (i.game, i.recipient) i.*
        from json_to_recordset(p_rows) as i (n int, game bigint, recipient bigint)
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
            n int, seq bigint, first int, game bigint, recipient bigint, purchase bigint, pays_back boolean, seconds float8,
            key_hash uuid, content_hash uuid)
        where i.n = any (v_reverted)
    ), refunded as (
        update game_purchase p
        set refunded_at = case when i.pays_back then clock_timestamp() end,
            revoked_at = case when not i.pays_back then clock_timestamp() end,
            refund = case when i.pays_back and p.price > 0 then i.seq + i.first end,
            refund_key = i.key_hash,
            refund_content = i.content_hash
        from input i
        where p.id = i.purchase and p.refunded_at is null and p.revoked_at is null
            and p.game = i.game and p.recipient = i.recipient
            and (not i.pays_back or p.at > clock_timestamp() - make_interval(secs => i.seconds))
        returning i.n, p.stocks, p.code, p.buyer, p.code_use
    ), unused as (
        delete from discount_code_use u using refunded f
        where u.code = f.code and u.app_user = f.buyer and u.number = f.code_use
    ), room as (
        select f.n, s.stock, row_number() over (partition by s.stock order by f.n)
            + coalesce((select number from stock_return r where r.stock = s.stock order by number desc limit 1), 0) as number
        from refunded f cross join lateral unnest(f.stocks) s (stock)
    ), returned as (
        insert into stock_return (stock, number)
        select stock, number from room order by stock, number
        on conflict do nothing
        returning stock, number
    )
    select coalesce(array_agg(i.n), '{}') into v_reverted
    from input i
    left join refunded f using (n)
    where (i.purchase is null or f.n is not null)
        and not exists (
            select from room left join returned r on r.stock = room.stock and r.number = room.number
            where room.n = i.n and r.stock is null
        )
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

-- The same for free games, in a transaction of their own. It yields to the ledger: whatever waits for longer than this is
-- tried again, so that a batch of postings never waits for a process that hangs.
create function claim_free_game(p_rows json) returns void
language plpgsql
set search_path = public, pg_temp
set lock_timeout = '200ms'
as $$
begin
    perform ledger.all_took(json_array_length(p_rows), array(select claim_purchases(p_rows)));
end
$$;

create function revert_free_games(p_rows json) returns void
language plpgsql
set search_path = public, pg_temp
set lock_timeout = '200ms'
as $$
begin
    perform ledger.all_took(json_array_length(p_rows), array(select revert_purchases(p_rows)));
end
$$;

-- Makes keys of a game, which is locked for its managers. False if fewer copies are left.
create function make_keys(
    p_game bigint, p_caller text, p_hashes bytea[], p_key uuid, p_content uuid
) returns boolean
language plpgsql
set search_path = public, pg_temp
set lock_timeout = '200ms'
as $$
declare
    v_stock bigint;
    v_count int := cardinality(p_hashes);
    v_batch bigint;
begin
    select stock into v_stock from game where id = p_game and state <> 'deleted' for key share;
    if v_stock is not null and cardinality(claim_stock(
        array(select generate_series(1, v_count)), array_fill(v_stock, array[v_count]))) < v_count
    then
        raise exception using errcode = 'RW003', message = 'too few copies are left';
    end if;
    insert into key_batch (game, caller, key_hash, content_hash) values (p_game, p_caller, p_key, p_content)
    returning id into v_batch;
    insert into activation_key (batch, hash) select v_batch, hash from unnest(p_hashes) hash;
    return true;
end
$$;

-- Redeems a key: `redeemed`, or why it is not.
create function redeem_key(p_hash bytea, p_user bigint, p_trace uuid, out outcome text, out game bigint, out base bigint)
language plpgsql
set search_path = public, pg_temp
set lock_timeout = '200ms'
as $$
declare
    v_key bigint;
    v_by bigint;
begin
    select k.id, k.redeemed_by, g.id, g.base into v_key, v_by, game, base
    from activation_key k
    join key_batch b on b.id = k.batch
    join game g on g.id = b.game
    where k.hash = p_hash
    for update of k;
    if not found then
        outcome := 'unknown';
    elsif v_by = p_user then
        -- The answer to the first attempt was lost.
        outcome := 'redeemed';
    elsif v_by is not null then
        outcome := 'used';
    else
        perform from entitlement e where e.game = redeem_key.base and e.app_user = p_user for key share;
        if base is not null and not found then
            outcome := 'base_missing';
            return;
        end if;
        insert into entitlement (game, app_user) values (redeem_key.game, p_user) on conflict do nothing;
        if not found then
            outcome := 'owned';
            return;
        end if;
        update activation_key set redeemed_at = now(), redeemed_by = p_user where id = v_key;
        insert into ledger.event (book, topic, trace_id, body) values (1, 'game_updates', p_trace, json_build_object(
            'type', 'entitlement.granted',
            'data', json_build_object('gameId', redeem_key.game, 'userId', p_user::text),
            'player', p_user::text,
            'audience', json_build_object('owner', p_user)));
        perform pg_notify('event', '1');
        outcome := 'redeemed';
    end if;
end
$$;
