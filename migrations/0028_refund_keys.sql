-- The keys of refunds are claimed by insert: a companion must not raise an error. And what a second review found in the
-- activation keys.

create table refund_key (
    key_hash uuid not null,
    content_hash uuid not null,
    purchase bigint not null,
    constraint refund_key_pkey primary key (key_hash)
);
insert into refund_key (key_hash, content_hash, purchase)
select refund_key, refund_content, id from game_purchase where refund_key is not null;
alter table game_purchase drop column refund_key, drop column refund_content;

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
            n int, seq bigint, first int, game bigint, recipient bigint, purchase bigint, pays_back boolean, seconds float8)
        where i.n = any (v_reverted)
    ), refunded as (
        update game_purchase p
        set refunded_at = case when i.pays_back then clock_timestamp() end,
            revoked_at = case when not i.pays_back then clock_timestamp() end,
            refund = case when i.pays_back and p.price > 0 then i.seq + i.first end
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

    -- A key belongs to one refund: of two at once the second one does not take effect.
    with input as (
        select distinct on (i.key_hash) i.*
        from json_to_recordset(p_rows) as i (n int, purchase bigint, key_hash uuid, content_hash uuid)
        where i.n = any (v_reverted) and i.key_hash is not null
        order by i.key_hash, i.n
    ), claimed as (
        insert into refund_key (key_hash, content_hash, purchase)
        select key_hash, content_hash, purchase from input order by key_hash
        on conflict do nothing
        returning key_hash
    )
    select coalesce(array_agg(i.n), '{}') into v_reverted
    from json_to_recordset(p_rows) as i (n int, key_hash uuid)
    where i.n = any (v_reverted) and (
        i.key_hash is null
        or exists (select from input join claimed using (key_hash) where input.n = i.n)
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

create or replace function make_keys(
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
    if not found then
        raise exception using errcode = 'RW004', message = 'the game was deleted';
    elsif stock_left(v_stock) < v_count then
        raise exception using errcode = 'RW003', message = 'too few copies are left';
    elsif v_stock is not null and cardinality(claim_stock(
        array(select generate_series(1, v_count)), array_fill(v_stock, array[v_count]))) < v_count
    then
        raise exception using errcode = 'RW002', message = 'another purchase came first';
    end if;
    insert into key_batch (game, caller, key_hash, content_hash) values (p_game, p_caller, p_key, p_content)
    returning id into v_batch;
    insert into activation_key (batch, hash) select v_batch, hash from unnest(p_hashes) hash;
    return true;
end
$$;

create or replace function redeem_key(p_hash bytea, p_user bigint, p_trace uuid, out outcome text, out game bigint, out base bigint)
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
    elsif v_by <> p_user then
        outcome := 'used';
    elsif v_by = p_user
        and exists (select from entitlement e where e.game = redeem_key.game and e.app_user = p_user)
    then
        -- The answer to the first attempt was lost.
        outcome := 'redeemed';
    else
        -- A copy that went with its base comes back with it: the key is still that of the user.
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
