-- Claims insert purchases without `on conflict do nothing`, which looked each row up in every unique index first and took a fifth
-- of the time. The entitlement, which a claim inserts before, already keeps a second purchase out.

-- The old index answered only whether a game was ever sold. `game_purchase_owned` has the purchases that still hold.
create index game_purchase_reverted on game_purchase (game) where refunded_at is not null or revoked_at is not null;
drop index game_purchase_game;

create or replace function claim_purchases(p_rows json) returns setof int
language plpgsql
set search_path = public, pg_temp
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off
set jit = off set plan_cache_mode = force_generic_plan
as $$
declare
    v_claims purchase_claim[];
    v_has_base boolean;
    v_has_stock boolean;
    v_has_use boolean;
    v_n int[];
    v_stock bigint[];
    v_xid bigint;
    v_constraint text;
begin
    -- The deletion of a game waits for this transaction, or it waits for the deletion and then sees it.
    with input as materialized (
        select *
        from json_to_recordset(p_rows) as i (
            n int, seq bigint, game bigint, buyer bigint, recipient bigint, revision int, own_fee int, until timestamptz,
            publisher bigint, stocks bigint[], sale bigint, code bigint, code_use int, price bigint, tax bigint, fee bigint,
            tax_rate int, fee_rate int, currency text, key_hash uuid, content_hash uuid, trace uuid)
        where not exists (select from game_purchase p where p.key_hash = i.key_hash)
        order by game, recipient, n
    ), quoted as materialized (
        select i.*, g.base
        from input i
        cross join lateral (
            select base from game g
            where g.id = i.game and g.revision = i.revision and g.state = 'published'
                and (select fee from publisher b where b.id = g.publisher) is not distinct from i.own_fee
            for key share of g
        ) g
        where i.until is null or clock_timestamp() < i.until
    )
    select
        array_agg(row(
            n, seq, game, base, buyer, recipient, publisher, stocks, sale, code, code_use, price, tax, fee, tax_rate, fee_rate,
            currency, key_hash, content_hash, trace)::purchase_claim),
        bool_or(base is not null), bool_or(stocks <> '{}'), bool_or(code_use is not null)
    into v_claims, v_has_base, v_has_stock, v_has_use
    from (select distinct on (game, recipient) * from quoted order by game, recipient, n) first;

    if v_has_base then
        -- So does the refund of a base.
        with owned as materialized (
            select i.n
            from unnest(v_claims) i
            cross join lateral (
                select from entitlement e where e.game = i.base and e.app_user = i.recipient for key share
            ) e
        )
        select array_agg(i) into v_claims
        from unnest(v_claims) i
        where i.base is null or i.n in (select n from owned);
    end if;

    with granted as (
        insert into entitlement (game, app_user)
        select game, recipient from unnest(v_claims)
        on conflict do nothing
        returning game, app_user
    )
    select array_agg(i) into v_claims
    from unnest(v_claims) i join granted g on g.game = i.game and g.app_user = i.recipient;

    if v_has_stock then
        select array_agg(i.n), array_agg(s.stock) into v_n, v_stock
        from unnest(v_claims) i cross join lateral unnest(i.stocks) s (stock);
        v_n := claim_stock(v_n, v_stock);
        select array_agg(i) into v_claims from unnest(v_claims) i where i.stocks = '{}' or i.n = any (v_n);
    end if;

    if v_has_use then
        -- Of two uses of a code with the same number one is inserted.
        with input as (
            select distinct on (code, buyer, code_use) n, code, buyer, code_use
            from unnest(v_claims)
            where code_use is not null
            order by code, buyer, code_use, n
        ), used as (
            insert into discount_code_use (code, app_user, number)
            select code, buyer, code_use from input order by code, buyer, code_use
            on conflict do nothing
            returning code, app_user, number
        )
        select array_agg(i.n) into v_n
        from input i join used u on u.code = i.code and u.app_user = i.buyer and u.number = i.code_use;
        select array_agg(i) into v_claims from unnest(v_claims) i where i.code_use is null or i.n = any (v_n);
    end if;

    -- Once: as the default of the column, it would be called for each row.
    v_xid := ledger.event_xid();
    begin
        with done as (
            insert into game_purchase (
                game, buyer, recipient, publisher, stocks, sale, code, code_use, transfer, price, tax, fee, tax_rate, fee_rate,
                currency, key_hash, content_hash)
            select game, buyer, recipient, publisher, stocks, sale, code, code_use, seq, price, tax, fee, tax_rate, fee_rate,
                currency, key_hash, content_hash
            from unnest(v_claims)
            returning game, recipient
        ), sold as materialized (
            select n, game, recipient, trace from unnest(v_claims) join done using (game, recipient)
        ), told as (
            insert into ledger.event (book, xid, topic, trace_id, body)
            select 1, v_xid, 'game_updates', trace, format(
                '{"type":"entitlement.granted","data":{"gameId":%s,"userId":"%s"},"player":"%s","audience":{"owner":%s}}',
                game, recipient, recipient, recipient)::json
            from sold
            order by n
        )
        select array_agg(n) into v_n from sold;
    exception when unique_violation then
        get stacked diagnostics v_constraint = constraint_name;
        if v_constraint <> 'game_purchase_key' then
            raise;
        end if;
        -- A free game was claimed with the same key at the same moment.
        return;
    end;
    perform pg_notify('event', '1');
    return query select unnest(v_n);
end
$$;
