-- The exchange: orders that sagas carry out, the quotes that lock their price, and the simulated outside world.

-- The house owns the hot wallets. It has no password that anybody could enter.
alter table app_user drop constraint app_user_role;
alter table app_user add constraint app_user_role check (role in ('user', 'admin', 'house'));
create unique index app_user_house on app_user (role) where role = 'house';

insert into app_user (username, email, first_name, role, password_hash)
select case when not exists (select from app_user where lower(username) = 'house') then 'house' end,
    'house@revwallet.invalid', 'House', 'house', '!'
where not exists (select from app_user where role = 'house');

create table exchange_quote (
    id uuid not null,
    at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    app_user bigint not null,
    -- In minor units. A buyer pays `fiat`, fee included; a seller gets it, fee deducted.
    fiat bigint not null,
    fee bigint not null,
    crypto bigint not null,
    side text not null,
    -- Currency of the fiat amount.
    currency text not null,
    -- Fiat per unit of crypto.
    price numeric not null,
    constraint exchange_quote_pkey primary key (id),
    constraint exchange_quote_side check (side in ('buy', 'sell')),
    constraint exchange_quote_amounts check (0 < fiat and 0 <= fee and 0 < crypto and 0 < price)
);

create index exchange_quote_expiry on exchange_quote (expires_at);

create table exchange_order (
    -- That of its saga.
    id bigint not null,
    at timestamptz not null default clock_timestamp(),
    app_user bigint not null,
    fiat bigint not null,
    fee bigint not null,
    crypto bigint not null,
    -- The transfer that holds the money.
    transfer bigint not null,
    quote uuid,
    side text not null,
    currency text not null,
    price numeric not null,
    constraint exchange_order_pkey primary key (id),
    constraint exchange_order_transfer unique (transfer),
    constraint exchange_order_side check (side in ('buy', 'sell')),
    constraint exchange_order_amounts check (0 < fiat and 0 <= fee and 0 < crypto and 0 < price)
);

create index exchange_order_user on exchange_order (app_user, id);
-- A quote is used once.
create unique index exchange_order_quote on exchange_order (quote) where quote is not null;

-- The fiat amounts of a user's orders since a moment, without those that failed.
create function exchange_volume(p_user bigint, p_currency text, p_since timestamptz) returns bigint
language sql stable
set search_path = public, pg_temp
as $$
    select coalesce(sum(o.fiat), 0)::bigint
    from exchange_order o
    join saga s on s.id = o.id
    where o.app_user = p_user and o.currency = p_currency and o.at > p_since and s.state <> 'failed'
$$;

-- Places orders: each takes effect if its quote is valid and not used, and if the user stays within the limits. The batches
-- of a book commit one after another, so a limit holds across processes.
create function place_orders(p_rows json) returns setof int
language plpgsql
set search_path = public, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_mergejoin = off
set jit = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_placed bigint[];
    v_accepted json;
begin
    with input as materialized (
        select * from json_to_recordset(p_rows) as i (
            n int, seq bigint, saga bigint, owner bigint, side text, currency text, fiat bigint, fee bigint, crypto bigint,
            price numeric, quote uuid, day_max bigint, month_max bigint)
    ), allowed as (
        -- Those of one user in one batch count together.
        select i.*, sum(fiat) over (partition by owner order by n) as fiat_in_batch
        from input i
        where i.quote is null or (
            select q.app_user = i.owner and clock_timestamp() < q.expires_at from exchange_quote q where q.id = i.quote
        )
    ), placed as (
        insert into exchange_order (id, app_user, side, currency, fiat, fee, crypto, price, quote, transfer)
        select saga, owner, side, currency, fiat, fee, crypto, price, quote, seq
        from allowed
        where (
            day_max is null
            or exchange_volume(owner, currency, clock_timestamp() - interval '24 hours') + fiat_in_batch <= day_max
        ) and (
            month_max is null
            or exchange_volume(owner, currency, clock_timestamp() - interval '30 days') + fiat_in_batch <= month_max
        )
        on conflict do nothing
        returning id
    )
    select array_agg(id) into v_placed from placed;
    if cardinality(v_placed) = json_array_length(p_rows) then
        return query select create_sagas(p_rows);
        return;
    end if;
    select json_agg(r) into v_accepted from json_array_elements(p_rows) r where (r ->> 'saga')::bigint = any (v_placed);
    if v_accepted is not null then
        return query select create_sagas(v_accepted);
    end if;
end
$$;

-- The simulated outside world: an exchange and a chain, which take each reference once. One row, changed by
-- `revwallet exchange simulate`; null is the setting of the program.
create table simulated_outside (
    price numeric,
    failure_rate float8,
    latency_seconds float8,
    -- Until then it does not answer.
    down_until timestamptz,
    the_only boolean not null default true,
    constraint simulated_outside_pkey primary key (the_only),
    constraint simulated_outside_one_row check (the_only),
    constraint simulated_outside_price check (0 < price),
    constraint simulated_outside_failure_rate check (failure_rate between 0 and 1),
    constraint simulated_outside_latency check (0 <= latency_seconds)
);

insert into simulated_outside default values;

-- What it has been asked to do.
create table simulated_call (
    at timestamptz not null default clock_timestamp(),
    -- When it takes effect, unless it is canceled before.
    due_at timestamptz not null,
    arrivals int not null default 1,
    reference text not null,
    -- The effect; null if it is refused for good.
    answer json,
    constraint simulated_call_pkey primary key (reference)
);

-- Faults that the next calls meet, for tests: calls whose reference contains the text.
create table simulated_fault (
    id bigint generated always as identity,
    remaining int not null,
    part text not null,
    fault text not null,
    constraint simulated_fault_pkey primary key (id),
    constraint simulated_fault_kind check (fault in ('refused', 'lost', 'silent', 'late', 'contradictory', 'twice', 'mute'))
);

-- Takes the next fault of a reference for one of these kinds of faults; null if there is none.
create function take_simulated_fault(p_reference text, p_kinds text[]) returns text
language plpgsql
set search_path = public, pg_temp
as $$
declare
    v_fault text;
begin
    if not exists (select from simulated_fault) then
        return null;
    end if;
    update simulated_fault f set remaining = remaining - 1
    where f.id = (
        select id from simulated_fault
        where remaining > 0 and position(part in p_reference) > 0 and fault = any (p_kinds)
        order by id limit 1 for update
    )
    returning fault into v_fault;
    return v_fault;
end
$$;

-- The reason that an operator gave.
alter table trail add column reason text;
