-- The book is partitioned by seq, so that an installation can move old transfers elsewhere: the table of a partition that is
-- complete is replaced by one with the few rows that later balances depend on.
--
-- New transfers are written into the table `transfer_open` directly, because Postgres prepares each partition again for each
-- insert into the partitioned table, which took 70 us a batch.

-- The rules held when the rows were written: each rule was only ever made wider.
alter table ledger.transfer
    validate constraint transfer_floor,
    validate constraint transfer_ceiling,
    validate constraint transfer_hot_floor,
    validate constraint transfer_prize_floor;

alter table ledger.transfer rename to transfer_open;
alter table ledger.transfer_open rename constraint transfer_pkey to transfer_0_pkey;
alter index ledger.transfer_debit rename to transfer_0_debit;
alter index ledger.transfer_credit rename to transfer_0_credit;
alter index ledger.transfer_state rename to transfer_0_state;
alter index ledger.transfer_linked rename to transfer_0_linked;

create table ledger.transfer (
    like ledger.transfer_open including constraints,
    constraint transfer_pkey primary key (book, seq)
) partition by range (seq);
create index transfer_debit on ledger.transfer (debit, book, seq);
create index transfer_credit on ledger.transfer (credit, book, seq);
create index transfer_state on ledger.transfer (book, debit, seq) where kind < 10;
create index transfer_linked on ledger.transfer (book, linked, seq) where linked is not null;
alter table ledger.transfer
    alter column debit set (n_distinct_inherited = -0.1),
    alter column credit set (n_distinct_inherited = -0.1);
create trigger transfer_is_append_only before update or delete or truncate on ledger.transfer
    for each statement execute function ledger.refuse_change();
alter table ledger.transfer enable always trigger transfer_is_append_only;

-- The partitions, with the seqs that each can contain.
create table ledger.partition (
    first_seq bigint not null constraint partition_pkey primary key,
    -- First seq behind the partition.
    end_seq bigint not null,
    -- Table in the schema ledger. The one that new transfers are written into is called `transfer_open`.
    name text not null constraint partition_name_key unique,
    -- Table with the rows that stay, once the archive of the partition has begun.
    rest text constraint partition_rest_key unique,
    -- Number of transfers of the partition, counted when its archive began.
    transfers bigint,
    -- Table that contains the transfers of an archived partition, or contained them until an operator moved it elsewhere.
    archived_as text constraint partition_archived_as_key unique,
    archived_at timestamptz,
    constraint partition_range check (0 <= first_seq and first_seq < end_seq),
    constraint partition_begun check ((rest is null) = (transfers is null)),
    constraint partition_archived check ((archived_as is null) = (archived_at is null) and (archived_as is null or name = rest))
);

-- Up to where a book is archived: the last seal whose batch is entirely in archived partitions. The batch that an archived
-- partition ends in stays complete.
create table ledger.archive (
    book int not null,
    first_seq bigint not null constraint archive_first_seq_fkey references ledger.partition (first_seq),
    until_seq bigint not null,
    -- Time of the seal.
    until timestamptz not null,
    constraint archive_pkey primary key (book, first_seq)
);

do $$
declare
    v_end bigint := (select coalesce(max(seq), 0) / 100000000 + 1 from ledger.seal) * 100000000;
begin
    execute format('alter table ledger.transfer attach partition ledger.transfer_open for values from (0) to (%s)', v_end);
    insert into ledger.partition (first_seq, end_seq, name) values (0, v_end, 'transfer_open');
end
$$;

-- Which positions a reader has: of transfers, or of events.
alter table ledger.cursor add column channel text not null default 'book';
alter table ledger.cursor add constraint cursor_channel check (channel in ('book', 'event'));
update ledger.cursor set channel = 'event' where name = 'webhook_events';

create or replace view observer.transfer as
select
    t.seq as transfer,
    t.at,
    observer.kind(t.kind) as kind,
    observer.wallet(t.debit) as from_wallet,
    observer.wallet(t.credit) as to_wallet,
    t.amount as minor_units,
    a.currency,
    t.debit_balance as from_balance,
    t.credit_balance as to_balance,
    t.linked,
    replace(t.trace_id::text, '-', '') as trace_id,
    t.debit,
    t.credit,
    t.leg,
    t.legs
from ledger.transfer t
left join ledger.account a on a.book = t.book and a.account = t.debit
-- Of the archive only some rows are there.
where t.book = 1 and t.seq > coalesce((select max(until_seq) from ledger.archive where book = 1), 0);

-- As before, but into the table of the open partition.
create or replace function ledger.post(
    p_book int,
    p_prev_seq bigint,
    p_prev_batch uuid,
    p_batch uuid,
    p_content bytea,
    p_strict boolean,
    p_notify boolean,
    p_debit bigint[],
    p_credit bigint[],
    p_amount bigint[],
    p_debit_balance bigint[],
    p_credit_balance bigint[],
    p_kind smallint[],
    p_leg smallint[],
    p_legs smallint[],
    p_trace uuid[],
    -- These two may be shorter than the others: missing elements are null.
    p_linked bigint[],
    p_metadata text[],
    p_key uuid[],
    p_key_content uuid[],
    p_key_first bigint[],
    p_key_last bigint[],
    p_account bigint[],
    p_account_currency text[],
    p_account_decimals smallint[],
    p_account_seq bigint[]
) returns timestamptz
language plpgsql security definer
set search_path = ledger, pg_catalog, pg_temp
as $$
declare
    v_seq bigint := p_prev_seq + cardinality(p_debit);
    v_at timestamptz;
begin
    insert into seal (seq, prev_seq, at, batch_id, book, hash)
    select
        v_seq, p_prev_seq, greatest(clock_timestamp(), prev.at), p_batch, p_book,
        sha256('\x01'::bytea || prev.hash || timestamptz_send(prev.at) || int8send(v_seq) || uuid_send(p_batch) || p_content)
    from seal prev
    where prev.book = p_book and prev.seq = p_prev_seq and prev.batch_id = p_prev_batch
    on conflict do nothing
    returning at into v_at;

    if not found then
        if p_strict then
            raise exception 'the head of book % is no longer %', p_book, p_prev_seq using errcode = 'RW001';
        end if;
        return null;
    end if;

    -- Subscripts instead of unnest, which would copy each array into a store of its own.
    insert into posting (first_seq, last_seq, key_hash, content_hash, book)
    select p_key_first[n], p_key_last[n], p_key[n], p_key_content[n], p_book
    from generate_series(1, cardinality(p_key)) n;

    if exists (select from partition where name = 'transfer_open' and first_seq <= p_prev_seq and v_seq < end_seq) then
        insert into transfer_open (
            seq, debit, credit, amount, debit_balance, credit_balance, at,
            book, kind, leg, legs, trace_id, linked, metadata)
        select
            p_prev_seq + n, p_debit[n], p_credit[n], p_amount[n], p_debit_balance[n], p_credit_balance[n], v_at,
            p_book, p_kind[n], p_leg[n], p_legs[n], p_trace[n], p_linked[n], p_metadata[n]::json
        from generate_series(1, cardinality(p_debit)) n;
    else
        if v_seq >= (select max(end_seq) from partition) then
            raise exception 'no partition has room for transfer %', v_seq using errcode = '53400';
        end if;
        insert into transfer (
            seq, debit, credit, amount, debit_balance, credit_balance, at,
            book, kind, leg, legs, trace_id, linked, metadata)
        select
            p_prev_seq + n, p_debit[n], p_credit[n], p_amount[n], p_debit_balance[n], p_credit_balance[n], v_at,
            p_book, p_kind[n], p_leg[n], p_legs[n], p_trace[n], p_linked[n], p_metadata[n]::json
        from generate_series(1, cardinality(p_debit)) n;
    end if;

    if cardinality(p_account) > 0 then
        insert into account (account, seq, book, decimals, currency)
        select a.account, a.seq, p_book, a.decimals, a.currency
        from unnest(p_account, p_account_seq, p_account_decimals, p_account_currency)
            as a (account, seq, decimals, currency);
    end if;

    if p_notify then
        perform pg_notify('book', p_book::text);
    end if;
    return v_at;
end
$$;

-- Creates a table for the transfers of a partition.
create function ledger.create_transfer_table(p_name text) returns void
language plpgsql
set search_path = ledger, pg_catalog, pg_temp
as $$
begin
    execute format('create table %I (like transfer including constraints, constraint %I primary key (book, seq))',
        p_name, p_name || '_pkey');
    execute format('create index %I on %I (debit, book, seq)', p_name || '_debit', p_name);
    execute format('create index %I on %I (credit, book, seq)', p_name || '_credit', p_name);
    execute format('create index %I on %I (book, debit, seq) where kind < 10', p_name || '_state', p_name);
    execute format('create index %I on %I (book, linked, seq) where linked is not null', p_name || '_linked', p_name);
    execute format('alter table %I alter column debit set (n_distinct = -0.1), alter column credit set (n_distinct = -0.1)',
        p_name);
    execute format('create trigger transfer_is_append_only before update or delete or truncate on %I
        for each statement execute function refuse_change()', p_name);
    execute format('alter table %I enable always trigger transfer_is_append_only', p_name);
end
$$;

-- Creates the next partition, for `p_rows` transfers, once the last one is half full, and opens it once the one before is
-- complete. Returns the number of transfers that the partitions have room for.
create function ledger.extend_partitions(p_rows bigint) returns bigint
language plpgsql security definer
set search_path = ledger, pg_catalog, pg_temp
set lock_timeout = '2s'
as $$
declare
    v_head bigint;
    v_lowest_head bigint;
    v_last partition;
    v_open partition;
    v_next partition;
begin
    if p_rows is null or p_rows < 100 then
        raise exception 'a partition has at least 100 transfers' using errcode = '22023';
    end if;
    select max(s.seq), min(s.seq) into v_head, v_lowest_head
    from book b
    cross join lateral (select seq from seal where seal.book = b.book order by seq desc limit 1) s;
    select * into v_last from partition order by first_seq desc limit 1;
    select * into v_open from partition where name = 'transfer_open';
    if v_last.end_seq - v_head > p_rows / 2 and v_lowest_head < v_open.end_seq
        -- One process does this at a time.
        or not pg_try_advisory_xact_lock(1885434484, 0) then
        return v_last.end_seq - v_head - 1;
    end if;
    select * into v_last from partition order by first_seq desc limit 1;
    while v_last.end_seq - v_head <= p_rows / 2 loop
        perform create_transfer_table('transfer_' || v_last.end_seq);
        execute format('alter table transfer attach partition %I for values from (%s) to (%s)',
            'transfer_' || v_last.end_seq, v_last.end_seq, v_last.end_seq + p_rows);
        insert into partition (first_seq, end_seq, name)
        values (v_last.end_seq, v_last.end_seq + p_rows, 'transfer_' || v_last.end_seq)
        returning * into v_last;
    end loop;
    -- Opening can wait, because batches behind the open partition are inserted through the parent. While this waits for a
    -- reader, all later readers wait as well, so it gives up soon and is tried again at the next call.
    begin
        perform set_config('lock_timeout', '100ms', true);
        loop
            select * into v_open from partition where name = 'transfer_open';
            exit when v_lowest_head < v_open.end_seq;
            select * into strict v_next from partition where first_seq = v_open.end_seq;
            -- Readers lock the book first, then its partitions.
            lock table only transfer in access exclusive mode;
            execute format('alter table transfer_open rename to %I', 'transfer_' || v_open.first_seq);
            execute format('alter table %I rename to transfer_open', v_next.name);
            update partition set name = 'transfer_' || v_open.first_seq where first_seq = v_open.first_seq;
            update partition set name = 'transfer_open' where first_seq = v_next.first_seq;
        end loop;
    exception
        when lock_not_available then null;
    end;
    return v_last.end_seq - v_head - 1;
end
$$;

-- Begins to archive the oldest partition that is not archived: copies the rows that later balances, states and holds depend on
-- into a table, and lets reads of the others be refused. Returns the number of rows that stay.
--
-- `finish_archive` must wait until every transaction that ran at the end of this one has ended: an older snapshot sees neither
-- the copied rows nor that the partition is archived.
create function ledger.begin_archive(p_first bigint) returns bigint
language plpgsql
set search_path = ledger, pg_catalog, pg_temp
as $$
declare
    v_part partition;
    v_rest text := 'transfer_' || p_first || '_rest';
    v_until archive[];
    v_behind text;
    v_transfers bigint;
    v_kept bigint;
begin
    perform pg_advisory_xact_lock(1885434484, 1);
    select * into v_part from partition where archived_at is null order by first_seq limit 1;
    if v_part.first_seq is distinct from p_first then
        raise exception 'partition % is not the oldest one that is not archived', p_first using errcode = 'RW003';
    end if;
    if v_part.rest is not null then
        execute format('select count(*) from %I', v_part.rest) into v_kept;
        return v_kept;
    end if;
    if v_part.name = 'transfer_open' then
        raise exception 'partition % is not complete', p_first using errcode = 'RW003';
    end if;
    select array_agg(row(b.book, p_first, s.seq, s.at)::archive) into v_until
    from book b
    cross join lateral (
        select seq, at from seal where seal.book = b.book and seq < v_part.end_seq order by seq desc limit 1
    ) s;
    select string_agg(format('%s (%s)', c.name, c.seq), ', ' order by c.name) into v_behind
    from cursor c
    join unnest(v_until) u on u.book = c.book
    where c.channel = 'book' and c.seq < u.until_seq;
    if v_behind is not null then
        raise exception 'these readers have not read partition % yet: %', p_first, v_behind using errcode = 'RW003';
    end if;

    perform create_transfer_table(v_rest);
    -- With this constraint, attaching the table needs no scan.
    execute format('alter table %I add constraint partition_bounds check (%s <= seq and seq < %s)',
        v_rest, v_part.first_seq, v_part.end_seq);
    execute format($sql$
        with rows as (
            -- The batch that the partition ends in.
            select t.book, t.seq from %1$I t join unnest($1) u using (book) where t.seq > u.until_seq
            union
            -- The last debit, the last credit, and the last change of state of each account before that batch.
            select t.book, max(t.seq) from %1$I t join unnest($1) u using (book) where t.seq <= u.until_seq
            group by t.book, t.debit
            union
            select t.book, max(t.seq) from %1$I t join unnest($1) u using (book) where t.seq <= u.until_seq
            group by t.book, t.credit
            union
            select t.book, max(t.seq) from %1$I t join unnest($1) u using (book) where t.seq <= u.until_seq and t.kind < 10
            group by t.book, t.debit
            union
            -- All holds, because their lists show when they were placed.
            select t.book, t.seq from %1$I t where t.kind = 14
            union
            -- What was captured and released of holds that had not ended before that batch.
            select l.book, l.seq
            from transfer o
            join unnest($1) u using (book)
            join %1$I l on l.book = o.book and l.linked = o.seq
            where o.kind = 14 and o.seq < %3$s and o.seq <= u.until_seq and o.amount > (
                select coalesce(sum(e.amount), 0) from transfer e
                where e.book = o.book and e.linked = o.seq and e.seq <= u.until_seq and e.kind in (15, 16, 17)
            )
        )
        insert into %2$I select t.* from %1$I t join rows r using (book, seq)
    $sql$, v_part.name, v_rest, v_part.end_seq) using v_until;
    get diagnostics v_kept = row_count;
    execute format('analyze %I', v_rest);
    execute format('select count(*) from %I', v_part.name) into v_transfers;
    update partition set rest = v_rest, transfers = v_transfers where first_seq = p_first;
    insert into archive select * from unnest(v_until);
    return v_kept;
end
$$;

-- Locks the book for the exchange of a partition. Vacuum of the partition is waited for first, which blocks nobody; while this
-- waits for readers of the book, later readers wait too, so it gives up soon, and the program tries again.
create function ledger.lock_for_exchange(p_name text) returns void
language plpgsql
set search_path = ledger, pg_catalog, pg_temp
as $$
begin
    execute format('lock table %I in share update exclusive mode', p_name);
    perform set_config('lock_timeout', '100ms', true);
    lock table only transfer in access exclusive mode;
    perform set_config('lock_timeout', '3s', true);
end
$$;

-- Puts the rows that stay in the place of the partition. The name of its table gets the prefix `archived_`, so that nobody drops
-- the table of a partition that is not archived.
create function ledger.finish_archive(p_first bigint) returns void
language plpgsql
set search_path = ledger, pg_catalog, pg_temp
set lock_timeout = '3s'
as $$
declare
    v_part partition;
    v_behind text;
begin
    perform pg_advisory_xact_lock(1885434484, 1);
    select * into strict v_part from partition where first_seq = p_first and rest is not null and archived_at is null;
    -- Asked again, because a reader may have been created while the rows were copied.
    select string_agg(format('%s (%s)', c.name, c.seq), ', ' order by c.name) into v_behind
    from cursor c
    join archive r on r.book = c.book and r.first_seq = p_first
    where c.channel = 'book' and c.seq < r.until_seq;
    if v_behind is not null then
        raise exception 'these readers have not read partition % yet: %', p_first, v_behind using errcode = 'RW003';
    end if;
    perform lock_for_exchange(v_part.name);
    execute format('alter table transfer detach partition %I', v_part.name);
    execute format('alter table transfer attach partition %I for values from (%s) to (%s)',
        v_part.rest, v_part.first_seq, v_part.end_seq);
    execute format('alter table %I drop constraint partition_bounds', v_part.rest);
    execute format('alter table %I rename to %I', v_part.name, 'archived_' || v_part.name);
    update partition set archived_as = 'archived_' || v_part.name, name = rest, archived_at = clock_timestamp()
    where first_seq = p_first;
end
$$;

-- Puts the table of the partition that was archived last back in its place, or takes back the begin of an archive.
--
-- Every transaction that ran when the table was filled must have ended.
create function ledger.restore_partition(p_first bigint) returns void
language plpgsql
set search_path = ledger, pg_catalog, pg_temp
set lock_timeout = '3s'
as $$
declare
    v_part partition;
    v_transfers bigint;
    v_differs boolean;
begin
    perform pg_advisory_xact_lock(1885434484, 1);
    select * into v_part from partition where rest is not null order by first_seq desc limit 1;
    if v_part.first_seq is distinct from p_first then
        raise exception 'partition % is not the one that was archived last', p_first using errcode = 'RW003';
    end if;
    if v_part.archived_at is not null then
        if to_regclass(format('ledger.%I', v_part.archived_as)) is null then
            raise exception 'the table ledger.% is missing; restore it first, for example with pg_restore', v_part.archived_as
                using errcode = 'RW003';
        end if;
        execute format('select count(*) from %I', v_part.archived_as) into v_transfers;
        execute format('select exists (
                select from %I r where not exists (
                    select from %I t
                    where t.book = r.book and t.seq = r.seq and t.debit = r.debit and t.credit = r.credit
                        and t.debit_balance = r.debit_balance and t.credit_balance = r.credit_balance
                ))', v_part.rest, v_part.archived_as) into v_differs;
        if v_transfers <> v_part.transfers or v_differs then
            raise exception 'the table ledger.% is not the one that was archived: it has % transfers of %',
                v_part.archived_as, v_transfers, v_part.transfers using errcode = 'RW003';
        end if;
        -- With this constraint, attaching the table needs no scan under the lock of the book.
        execute format('alter table %I add constraint partition_bounds check (%s <= seq and seq < %s)',
            v_part.archived_as, v_part.first_seq, v_part.end_seq);
        perform lock_for_exchange(v_part.rest);
        execute format('alter table transfer detach partition %I', v_part.rest);
        execute format('alter table transfer attach partition %I for values from (%s) to (%s)',
            v_part.archived_as, v_part.first_seq, v_part.end_seq);
        execute format('alter table %I drop constraint partition_bounds', v_part.archived_as);
        execute format('alter table %I rename to %I', v_part.archived_as, 'transfer_' || p_first);
    end if;
    execute format('drop table %I', v_part.rest);
    delete from archive where first_seq = p_first;
    update partition
    set name = 'transfer_' || p_first, rest = null, transfers = null, archived_as = null, archived_at = null
    where first_seq = p_first;
end
$$;

revoke all on function ledger.create_transfer_table, ledger.extend_partitions, ledger.begin_archive,
    ledger.lock_for_exchange, ledger.finish_archive, ledger.restore_partition from public;

do $$
begin
    if exists (select from pg_roles where rolname = 'revwallet_app') then
        grant select on ledger.transfer, ledger.partition, ledger.archive to revwallet_app;
        grant execute on function ledger.extend_partitions to revwallet_app;
        revoke all on ledger.transfer_open from revwallet_app;
    end if;
end
$$;
