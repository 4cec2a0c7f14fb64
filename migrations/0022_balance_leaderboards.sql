-- Seed 000's leaderboard: the highest balance that each player's main wallet ever reached, one board for each currency.
-- A durable reader of the book keeps it; clients cannot name it.

alter table leaderboard
    add column builtin boolean not null default false,
    drop constraint leaderboard_name_format,
    add constraint leaderboard_name_format check (
        case when builtin then name ~ '^[$]' else name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$' end
    );

-- Records balances that players reached, in the order of the book. Creates the board of the currency on first use.
create function leaderboard_record(p_currency text, p_owner text[], p_balance bigint[]) returns void
language plpgsql
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
set jit = off set max_parallel_workers_per_gather = 0 set plan_cache_mode = force_generic_plan
as $$
declare
    v_name constant text := '$' || p_currency;
    v_board bigint;
    v_season bigint;
    v_leader text;
    v_first leaderboard_entry;
begin
    insert into leaderboard (name, ascending, operator, time_zone, builtin)
    values (v_name, false, 'best', 'UTC', true)
    on conflict (name) where deleted_at is null do nothing
    returning id into v_board;
    if found then
        insert into leaderboard_season (board, number, starts_at, prizes) values (v_board, 1, leaderboard_now(), '[]');
    end if;
    select id into strict v_board from leaderboard where name = v_name and deleted_at is null for no key update;
    select id into strict v_season from leaderboard_season where board = v_board and ended_at is null;
    select * into v_first from leaderboard_entry where season = v_season order by season, place limit 1;
    v_leader := v_first.owner;
    for i in 1..cardinality(p_owner) loop
        perform leaderboard_apply(v_season, false, 'best', p_owner[i], p_balance[i], 0, null);
    end loop;
    select * into v_first from leaderboard_entry where season = v_season order by season, place limit 1;
    -- Without the amount, which not everybody may see.
    if v_first.owner is distinct from v_leader then
        insert into ledger.event (book, topic, body)
        values (1, 'leaderboard-changes', json_build_object('currency', p_currency, 'owner', v_first.owner, 'rank', 1));
        perform pg_notify('event', '1');
    end if;
end
$$;
