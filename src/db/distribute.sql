-- Distributes the tables of the ledger by book over the workers of a Citus cluster. The small tables that describe partitions are copied
-- to every server.
do $$
declare
    v_table text;
begin
    if not exists (select from pg_roles where rolname = current_user and rolsuper) then
        raise exception '% is not a superuser; let one run `revwallet migrate --citus`', current_user using errcode = '42501';
    end if;
    if to_regclass('pg_catalog.pg_dist_node') is null then
        raise exception 'this database has no Citus; run `create extension citus` in it on every server' using errcode = '55000';
    end if;
    if not exists (select from pg_dist_node where isactive and groupid <> 0) then
        raise exception 'the cluster has no server besides the coordinator; add one with citus_add_node' using errcode = '55000';
    end if;
    if exists (select from run_command_on_workers('show max_prepared_transactions') where not success or result = '0') then
        raise exception 'a server does not answer, or does not allow commits in two phases; set max_prepared_transactions on every server'
            using errcode = '55000';
    end if;
    if not exists (select from pg_dist_partition where logicalrelid = 'ledger.seal'::regclass) and exists (
        select from pg_stat_activity
        where datname = current_database() and application_name like 'revwallet%' and pid <> pg_backend_pid()
    ) then
        raise exception 'a process of the program still uses this database; stop all processes before the books are distributed'
            using errcode = '55006';
    end if;
    -- The triggers of the ledger refuse changes of a row and read nothing else.
    perform set_config('citus.enable_unsafe_triggers', 'on', true);
    perform set_config('citus.multi_shard_modify_mode', 'sequential', true);
    if not exists (select from pg_dist_partition where logicalrelid = 'ledger.partition'::regclass) then
        -- Without this constraint, because Citus would replace the table at the other end, and with it the views that read it.
        alter table ledger.archive drop constraint archive_first_seq_fkey;
        perform create_reference_table('ledger.partition');
        perform create_reference_table('ledger.archive');
        alter table ledger.archive
            add constraint archive_first_seq_fkey foreign key (first_seq) references ledger.partition (first_seq);
    end if;
    foreach v_table in array array['seal', 'account', 'posting', 'transfer', 'transfer_copy'] loop
        if not exists (select from pg_dist_partition where logicalrelid = format('ledger.%I', v_table)::regclass) then
            perform create_distributed_table(
                format('ledger.%I', v_table), 'book',
                colocate_with => case when v_table = 'seal' then 'none' else 'ledger.seal' end);
        end if;
    end loop;
    -- A transaction that changes a table of which each server has a copy must use one connection to each server. A new partition gets
    -- triggers.
    foreach v_table in array array[
        'ledger.create_books(int, bigint)', 'ledger.create_book(int, text, bigint)', 'ledger.create_partition(bigint, bigint)',
        'ledger.extend_partitions(bigint)', 'ledger.begin_archive(bigint)', 'ledger.finish_archive(bigint)',
        'ledger.restore_partition(bigint)'
    ] loop
        execute format('alter function %s set citus.multi_shard_modify_mode = sequential', v_table);
        execute format('alter function %s set citus.enable_unsafe_triggers = on', v_table);
    end loop;
    -- The coordinator connects to the other servers as the role that runs a statement.
    if exists (select from pg_roles where rolname = 'revwallet_app' and not rolcanlogin) then
        alter role revwallet_app login;
    end if;
end
$$;

-- The function of the leaderboards of balances. It reads the wallets here and the transfers on the server of the book, so the two
-- cannot be joined.
create or replace function public.raises(p_book int, p_after bigint, p_end bigint)
returns table (
    seq bigint, transfer bigint, trace_id uuid, wallet bigint, player text, currency text, balance bigint
)
language plpgsql stable
set search_path = public, pg_temp
set jit = off set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
declare
    v_seq bigint[];
    v_transfer bigint[];
    v_trace uuid[];
    v_wallet bigint[];
    v_balance bigint[];
    v_held bigint[];
begin
    if not exists (select from wallet w where w.player is not null) then
        return;
    end if;
    select
        array_agg(t.seq order by t.seq), array_agg(coalesce(t.home, t.seq) - t.leg order by t.seq),
        array_agg(t.trace_id order by t.seq), array_agg(t.credit order by t.seq), array_agg(t.credit_balance order by t.seq)
    into v_seq, v_transfer, v_trace, v_wallet, v_balance
    from (
        -- In this order, so that they are found by their number even in a table without statistics.
        select * from ledger.transfer t
        where t.book = p_book and t.seq > p_after and t.seq <= p_end and t.amount > 0 and t.credit > 0
            and t.credit >> 44 = p_book - 1
            and t.debit <> -(1::bigint << 40) - t.credit
        order by t.seq
    ) t;
    select array_agg(coalesce(h.balance, 0) order by c.n) into v_held
    from unnest(v_wallet, v_seq) with ordinality c (wallet, seq, n)
    left join lateral (
        select case when last.credit = -(1::bigint << 40) - c.wallet then last.credit_balance else last.debit_balance end
            as balance
        from (
            (select l.seq, l.credit, l.credit_balance, l.debit_balance from ledger.transfer l
            where l.book = p_book and l.credit = -(1::bigint << 40) - c.wallet and l.seq <= c.seq
            order by l.seq desc limit 1)
            union all
            (select l.seq, l.credit, l.credit_balance, l.debit_balance from ledger.transfer l
            where l.book = p_book and l.debit = -(1::bigint << 40) - c.wallet and l.seq <= c.seq
            order by l.seq desc limit 1)
        ) last
        order by last.seq desc limit 1
    ) h on true;
    return query
    select c.seq, c.transfer, c.trace, w.id, w.player, w.currency, c.balance + c.held
    from unnest(v_seq, v_transfer, v_trace, v_wallet, v_balance, v_held) c (seq, transfer, trace, wallet, balance, held)
    join wallet w on w.id = c.wallet
    where w.player is not null;
end
$$;

create or replace function ledger.complete_commits(p_books int[]) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_nodes text[];
    v_ports int[];
    v_replies text[];
    v_are_reached boolean;
    v_interrupted text[];
begin
    select array_agg(nodename), array_agg(nodeport) into v_nodes, v_ports
    from (
        select distinct p.nodename, p.nodeport
        from unnest(p_books) b (book)
        join pg_dist_shard_placement p on p.shardid = get_shard_id_for_distribution_column('ledger.seal', b.book)
    ) node;
    if v_nodes is null then
        return false;
    end if;
    for round in 1..2 loop
        select array_agg(result), bool_and(success) into v_replies, v_are_reached
        from master_run_on_worker(v_nodes, v_ports, array_fill($sql$
            select coalesce(string_agg(gid, ','), '') from pg_prepared_xacts where gid like 'citus\_0\_%' and database = current_database()
        $sql$::text, array[cardinality(v_nodes)]), true);
        if not v_are_reached then
            raise exception 'a server of the cluster cannot be reached, so interrupted commits cannot be completed' using errcode = '57P03';
        end if;
        -- Read after the prepared transactions: a session that prepared one and has not ended its transaction is still active.
        select array_agg(gid) into v_interrupted
        from unnest(v_replies) reply (gids)
        cross join lateral regexp_split_to_table(reply.gids, ',') gid
        where gid <> '' and not exists (
            select from get_all_active_transactions() a
            where gid like 'citus\_0\_' || a.process_id || '\_' || a.transaction_number || '\_%'
        ) and (round = 1 or gid = any (v_interrupted));
        if v_interrupted is null then
            return round > 1;
        end if;
        if round = 1 then
            perform recover_prepared_transactions();
        end if;
    end loop;
    raise exception 'interrupted commits are not complete: %', v_interrupted using errcode = '57P03';
end
$$;

-- Whether another transaction may be writing idempotency keys: one that has inserted keys holds a lock on their table until its commit is
-- complete, even if a failure interrupts it.
create or replace function ledger.are_keys_locked() returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_shard bigint := get_shard_id_for_distribution_column('ledger.posting', 1);
    v_is_free boolean;
begin
    select bool_and(reply.success and reply.result = '0') into v_is_free
    from pg_dist_shard_placement p
    cross join lateral master_run_on_worker(array[p.nodename], array[p.nodeport]::int[], array[format($sql$
        select count(*) from pg_locks
        where relation = %L::regclass and mode = 'RowExclusiveLock'
            and database = (select oid from pg_database where datname = current_database())
    $sql$, 'ledger.posting_' || v_shard)], true) reply
    where p.shardid = v_shard;
    return v_is_free is not true;
end
$$;
revoke all on function ledger.are_keys_locked from public;

-- Only a superuser may complete the commits of others, and run statements on the servers. The functions of the owner of the ledger call
-- these.
do $$
declare
    v_owner regrole := (select nspowner from pg_namespace where nspname = 'ledger');
    v_function text;
begin
    foreach v_function in array array['complete_commits', 'are_keys_locked'] loop
        execute format('alter function ledger.%I owner to %I', v_function, current_user);
        execute format('grant execute on function ledger.%I to %s', v_function, v_owner);
    end loop;
end
$$;

create or replace function ledger.late_keys(p_keys uuid[])
returns table (key_hash uuid, content_hash uuid, first_seq bigint, last_seq bigint)
language plpgsql security definer
set search_path = ledger, pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_key uuid;
    v_seq bigint;
begin
    if are_keys_locked() then
        -- An insert waits for a transaction that inserts the same key. One key after the other, so that this holds no key while it waits
        -- for another one.
        foreach v_key in array p_keys loop
            begin
                v_seq := (1::bigint << 62) + (random() * (1::bigint << 60))::bigint;
                insert into posting (first_seq, last_seq, key_hash, content_hash, book) values (v_seq, v_seq, v_key, v_key, 1)
                on conflict do nothing;
                raise exception using errcode = 'RW004';
            exception
                when sqlstate 'RW004' then null;
            end;
        end loop;
    end if;
    return query
    select p.key_hash, p.content_hash, p.first_seq, p.last_seq from posting p where p.book = 1 and p.key_hash = any (p_keys);
end
$$;

-- A partition consists of a table for each book on the servers, which cannot be detached there.
create or replace function ledger.begin_archive(p_first bigint) returns bigint
language plpgsql
as $$
begin
    raise exception 'partitions of a ledger on Citus cannot be archived' using errcode = 'RW003';
end
$$;
