-- Several books: each is an order of transfers of its own, and different books are written at the same time.
--
-- An id says its book: the customer accounts and the seqs of book `b` lie above (b - 1) * 2^44. The accounts of the operator that
-- have a floor or a creditor (prizes, the exchange's own funds, debts to publishers) are in book 1; its other accounts (the
-- outside world, revenue, tax) are in every book.
--
-- A posting that touches accounts of several books is written by one transaction that seals all of them. One of the books is its
-- home, which gets every leg and gives the transfer its id. The book of each other account gets a copy of the legs that touch
-- that account. In a book, the balance of an account of another book is what this book has sent to that account so far, which
-- has no floor.

-- In the order in which a batch locks them, so that this migration and a batch never wait for each other.
lock table ledger.book, ledger.seal, ledger.transfer in access exclusive mode;

-- Takes back archives that have begun: their tables would lack what this migration adds. `revwallet partition archive` begins anew.
do $$
declare
    v_part ledger.partition;
begin
    for v_part in select * from ledger.partition where rest is not null and archived_at is null loop
        execute format('drop table ledger.%I', v_part.rest);
        delete from ledger.archive where first_seq = v_part.first_seq;
        update ledger.partition set rest = null, transfers = null where first_seq = v_part.first_seq;
    end loop;
end
$$;

alter table ledger.book add constraint book_number check (book <= 256);

-- Seq of the leg in the home of its posting; null in the home itself.
alter table ledger.transfer add column home bigint;

-- The copies of each leg in other books than its home.
create table ledger.transfer_copy (
    home bigint not null,
    seq bigint not null,
    book int not null,
    constraint transfer_copy_pkey primary key (home, book),
    constraint transfer_copy_is_elsewhere check (home >> 44 <> book - 1 and seq >> 44 = book - 1)
);
create trigger transfer_copy_is_append_only before update or delete or truncate on ledger.transfer_copy
    for each statement execute function ledger.refuse_change();
alter table ledger.transfer_copy enable always trigger transfer_copy_is_append_only;

-- Sets the rules of a table of transfers, which differ from those before this migration for accounts of other books.
create function ledger.set_transfer_rules(p_name text) returns void
language plpgsql
set search_path = ledger, pg_catalog, pg_temp
as $$
begin
    -- Not valid, because checking all rows takes long; each row satisfies the former rules, which are stricter.
    execute format($sql$
        alter table %I
            drop constraint transfer_floor,
            drop constraint transfer_ceiling,
            drop constraint transfer_prize_floor,
            drop constraint transfer_hot_floor,
            drop constraint transfer_linked,
            drop constraint transfer_leg,
            add constraint transfer_floor check (
                0 <= debit_balance or (-1099511627776 < debit and debit < 0) or debit <= -18014398509481984
                or case when 0 < debit then debit else -1099511627776 - debit end >> 44 <> book - 1
            ) not valid,
            add constraint transfer_ceiling check (
                credit_balance <= 9007199254740991 or (-1099511627776 < credit and credit < 0) or credit <= -18014398509481984
                or case when 0 < credit then credit else -1099511627776 - credit end >> 44 <> book - 1
            ) not valid,
            add constraint transfer_prize_floor check (
                0 <= debit_balance or debit <= -(8::bigint << 32) or -(7::bigint << 32) < debit or book <> 1
            ) not valid,
            add constraint transfer_hot_floor check (
                0 <= debit_balance or debit <= -(4::bigint << 32) or -(3::bigint << 32) < debit or book <> 1
            ) not valid,
            add constraint transfer_linked check (linked < seq or linked >> 44 <> book - 1) not valid,
            add constraint transfer_leg check (0 <= leg and leg < legs and (leg < seq or home is not null)) not valid,
            add constraint transfer_home check (home is null or home >> 44 <> book - 1) not valid
    $sql$, p_name);
end
$$;
select ledger.set_transfer_rules('transfer');

alter table ledger.seal
    drop constraint seal_only_the_first_stands_alone,
    add constraint seal_only_the_first_stands_alone check ((seq = (book - 1)::bigint << 44) = (prev_seq is null)) not valid;

drop function ledger.post(int, bigint, uuid, uuid, bytea, boolean, boolean, bigint[], bigint[], bigint[], bigint[], bigint[], smallint[], smallint[], smallint[], uuid[], bigint[], text[], uuid[], uuid[], bigint[], bigint[], bigint[], text[], smallint[], bigint[]);

-- As before, but for any book, and with the home of each leg. The batches of book 1 go into the table of its open partition.
create function ledger.post(
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
    p_account_seq bigint[],
    -- May be shorter as well. Null from a program of before this parameter.
    p_home bigint[] default null
) returns timestamptz
language plpgsql security definer
set search_path = ledger, pg_catalog, pg_temp
as $$
declare
    v_seq bigint := p_prev_seq + cardinality(p_debit);
    v_at timestamptz;
begin
    -- A posting to several books takes this lock exclusively, which makes it wait for the batches in progress only.
    perform pg_advisory_xact_lock_shared(1885434485, p_book);
    if p_home is null and exists (select from book where book > 1) then
        raise exception 'a program that knows one book cannot write to several' using errcode = '55000';
    end if;

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

    -- All keys are in book 1, so that a key has one effect over all books.
    -- Subscripts instead of unnest, which would copy each array into a store of its own.
    insert into posting (first_seq, last_seq, key_hash, content_hash, book)
    select p_key_first[n], p_key_last[n], p_key[n], p_key_content[n], 1
    from generate_series(1, cardinality(p_key)) n;

    if exists (select from partition where name = 'transfer_open' and first_seq <= p_prev_seq and v_seq < end_seq) then
        insert into transfer_open (
            seq, debit, credit, amount, debit_balance, credit_balance, at,
            book, kind, leg, legs, trace_id, linked, metadata, home)
        select
            p_prev_seq + n, p_debit[n], p_credit[n], p_amount[n], p_debit_balance[n], p_credit_balance[n], v_at,
            p_book, p_kind[n], p_leg[n], p_legs[n], p_trace[n], p_linked[n], p_metadata[n]::json, p_home[n]
        from generate_series(1, cardinality(p_debit)) n;
    else
        if not exists (select from partition where first_seq <= v_seq and v_seq < end_seq) then
            raise exception 'no partition has room for transfer %', v_seq using errcode = '53400';
        end if;
        insert into transfer (
            seq, debit, credit, amount, debit_balance, credit_balance, at,
            book, kind, leg, legs, trace_id, linked, metadata, home)
        select
            p_prev_seq + n, p_debit[n], p_credit[n], p_amount[n], p_debit_balance[n], p_credit_balance[n], v_at,
            p_book, p_kind[n], p_leg[n], p_legs[n], p_trace[n], p_linked[n], p_metadata[n]::json, p_home[n]
        from generate_series(1, cardinality(p_debit)) n;
    end if;

    if cardinality(p_home) > 0 then
        insert into transfer_copy (home, seq, book)
        select p_home[n], p_prev_seq + n, p_book
        from generate_series(1, cardinality(p_home)) n
        where p_home[n] is not null;
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

revoke all on function ledger.post from public;

-- As before, but no posting to several books can come between what a writer reads under the lock of its book and its batch.
create or replace function ledger.catch_up(p_book int, p_after bigint, p_max bigint, p_lock boolean)
returns table (
    head_seq bigint, head_batch uuid,
    kind smallint[], debit bigint[], credit bigint[], debit_balance bigint[], credit_balance bigint[])
language plpgsql security definer
set search_path = ledger, pg_catalog, pg_temp
as $$
begin
    if p_lock then
        -- Statements of their own: the next one must see what was committed while these waited.
        perform 1 from book where book.book = p_book for no key update;
        perform pg_advisory_xact_lock_shared(1885434485, p_book);
    end if;
    return query
    with head as materialized (
        select s.seq, s.batch_id from seal s where s.book = p_book order by s.seq desc limit 1
    )
    select h.seq, h.batch_id, m.kind, m.debit, m.credit, m.debit_balance, m.credit_balance
    from head h
    cross join lateral (
        select
            array_agg(t.kind) as kind, array_agg(t.debit) as debit, array_agg(t.credit) as credit,
            array_agg(t.debit_balance) as debit_balance, array_agg(t.credit_balance) as credit_balance
        from (
            select * from transfer t
            where t.book = p_book and t.seq > p_after and t.seq <= h.seq and h.seq - p_after <= p_max
            order by t.seq
        ) t
    ) m;
end
$$;

-- Creates a book, with the seal that its first batch follows and a partition for `p_rows` transfers.
drop function ledger.create_book(int, text);
create function ledger.create_book(p_book int, p_name text, p_rows bigint) returns void
language plpgsql
set search_path = ledger, pg_catalog, pg_temp
as $$
declare
    v_first bigint := (p_book - 1)::bigint << 44;
begin
    insert into book (book, name) values (p_book, p_name);
    insert into seal (seq, prev_seq, at, batch_id, book, hash)
    values (v_first, null, clock_timestamp(), '00000000-0000-0000-0000-000000000000', p_book, sha256(int4send(p_book)));
    perform create_partition(v_first, v_first + p_rows);
end
$$;

-- Creates an empty partition.
create function ledger.create_partition(p_first bigint, p_end bigint) returns void
language plpgsql
set search_path = ledger, pg_catalog, pg_temp
as $$
begin
    perform create_transfer_table('transfer_' || p_first);
    execute format('alter table transfer attach partition %I for values from (%s) to (%s)', 'transfer_' || p_first, p_first, p_end);
    insert into partition (first_seq, end_seq, name) values (p_first, p_end, 'transfer_' || p_first);
end
$$;

-- Creates the next partition of each book, for `p_rows` transfers, once its last one is half full, and opens that of book 1 once
-- the one before is complete. Returns the number of transfers that the partitions of a book have room for, of the fullest one.
create or replace function ledger.extend_partitions(p_rows bigint) returns bigint
language plpgsql security definer
set search_path = ledger, pg_catalog, pg_temp
set lock_timeout = '2s'
as $$
declare
    v_book int;
    v_head bigint;
    v_end bigint;
    v_room bigint;
    v_open partition;
    v_next partition;
begin
    if p_rows is null or p_rows < 100 then
        raise exception 'a partition has at least 100 transfers' using errcode = '22023';
    end if;
    for v_book, v_head, v_end in
        select b.book, s.seq, p.end_seq
        from book b
        cross join lateral (select seq from seal where seal.book = b.book order by seq desc limit 1) s
        cross join lateral (
            select end_seq from partition where first_seq < b.book::bigint << 44 order by first_seq desc limit 1
        ) p
    loop
        -- One process does this at a time.
        if v_end - v_head <= p_rows / 2 and pg_try_advisory_xact_lock(1885434484, 0) then
            select end_seq into v_end from partition where first_seq < v_book::bigint << 44 order by first_seq desc limit 1;
            while v_end - v_head <= p_rows / 2 loop
                perform create_partition(v_end, v_end + p_rows);
                v_end := v_end + p_rows;
            end loop;
        end if;
        v_room := least(v_room, v_end - v_head - 1);
    end loop;

    -- Opening can wait, because batches behind the open partition are inserted through the parent. While this waits for a
    -- reader, all later readers wait as well, so it gives up soon and is tried again at the next call.
    select seq into v_head from seal where book = 1 order by seq desc limit 1;
    select * into v_open from partition where name = 'transfer_open';
    if v_head < v_open.end_seq or not pg_try_advisory_xact_lock(1885434484, 0) then
        return v_room;
    end if;
    begin
        perform set_config('lock_timeout', '100ms', true);
        loop
            select * into v_open from partition where name = 'transfer_open';
            exit when v_head < v_open.end_seq;
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
    return v_room;
end
$$;

-- As before, but for a partition of any book.
create or replace function ledger.begin_archive(p_first bigint) returns bigint
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
    select * into v_part from partition
    where archived_at is null and first_seq >> 44 = p_first >> 44 order by first_seq limit 1;
    if v_part.first_seq is distinct from p_first then
        raise exception 'partition % is not the oldest one of its book that is not archived', p_first using errcode = 'RW003';
    end if;
    if v_part.rest is not null then
        execute format('select count(*) from %I', v_part.rest) into v_kept;
        return v_kept;
    end if;
    if v_part.name = 'transfer_open' or v_part.end_seq > 1 + (
        select seq from seal where book = (p_first >> 44) + 1 order by seq desc limit 1
    ) then
        raise exception 'partition % is not complete', p_first using errcode = 'RW003';
    end if;
    select array_agg(row(b.book, p_first, s.seq, s.at)::archive) into v_until
    from book b
    cross join lateral (
        select seq, at from seal where seal.book = b.book and seq < v_part.end_seq order by seq desc limit 1
    ) s
    where b.book = (p_first >> 44) + 1;
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

-- As before, but for a partition of any book, and for a table that was archived before there were several.
create or replace function ledger.restore_partition(p_first bigint) returns void
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
    select * into v_part from partition
    where rest is not null and first_seq >> 44 = p_first >> 44 order by first_seq desc limit 1;
    if v_part.first_seq is distinct from p_first then
        raise exception 'partition % is not the one of its book that was archived last', p_first using errcode = 'RW003';
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
        -- The table may be from before this migration.
        if not exists (
            select from pg_attribute where attrelid = format('ledger.%I', v_part.archived_as)::regclass and attname = 'home'
        ) then
            execute format('alter table %I add column home bigint', v_part.archived_as);
            perform set_transfer_rules(v_part.archived_as);
        end if;
        execute format('alter table %I
            validate constraint transfer_floor, validate constraint transfer_ceiling,
            validate constraint transfer_prize_floor, validate constraint transfer_hot_floor,
            validate constraint transfer_linked, validate constraint transfer_leg, validate constraint transfer_home', v_part.archived_as);
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

revoke all on function ledger.set_transfer_rules, ledger.create_book, ledger.create_partition from public;

do $$
begin
    if exists (select from pg_roles where rolname = 'revwallet_app') then
        grant execute on function ledger.post to revwallet_app;
        grant select on ledger.transfer_copy to revwallet_app;
    end if;
end
$$;
