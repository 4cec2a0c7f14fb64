-- Prepares the ledger for Citus, which can store each book on another server. A statement there may read several books only if it
-- reads each of them in the same way, without a limit; a function may read one book after the other.

-- The last seal of a book before the seq `p_before`.
create function ledger.last_seal(
    p_book int,
    p_before bigint default 9223372036854775807,
    out seq bigint,
    out at timestamptz,
    out batch_id uuid,
    out hash bytea
) returns setof record
language plpgsql stable rows 1
as $$
begin
    return query
    select s.seq, s.at, s.batch_id, s.hash
    from ledger.seal s
    where s.book = p_book and s.seq < p_before
    order by s.seq desc
    limit 1;
end
$$;

-- The first seal of a book from the seq `p_from` on: that of the batch with this transfer.
create function ledger.first_seal(p_book int, p_from bigint, out seq bigint, out at timestamptz, out batch_id uuid)
returns setof record
language plpgsql stable rows 1
as $$
begin
    return query
    select s.seq, s.at, s.batch_id
    from ledger.seal s
    where s.book = p_book and s.seq >= p_from
    order by s.seq
    limit 1;
end
$$;

-- On Citus, a failure can leave a transaction committed on one server and not yet on another. This completes such transactions on the
-- servers of these books, and returns whether it has found any; it fails while one of these servers cannot be reached. On one server
-- there is nothing to complete.
create function ledger.complete_commits(p_books int[]) returns boolean
language plpgsql
as $$
begin
    return false;
end
$$;

-- The postings of these keys. On Citus, waits first for the transactions that write these keys, even for those that a failure
-- interrupted: another server may show already what such a transaction did.
create function ledger.late_keys(p_keys uuid[])
returns table (key_hash uuid, content_hash uuid, first_seq bigint, last_seq bigint)
language plpgsql
as $$
begin
    return query
    select p.key_hash, p.content_hash, p.first_seq, p.last_seq
    from unnest(p_keys) wanted (key_hash)
    cross join lateral (
        select * from ledger.posting k where k.book = 1 and k.key_hash = wanted.key_hash offset 0
    ) p;
end
$$;

revoke all on function ledger.last_seal, ledger.first_seal, ledger.complete_commits, ledger.late_keys from public;

do $$
begin
    if exists (select from pg_roles where rolname = 'revwallet_app') then
        grant execute on function
            ledger.last_seal, ledger.first_seal, ledger.complete_commits, ledger.late_keys
        to revwallet_app;
    end if;
end
$$;

-- As before, but interrupted commits are completed first.
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
    -- Before anything is read: a commit that was interrupted while this waited for the lock is not visible yet.
    perform complete_commits(array[p_book]);
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

-- As before.
create or replace function ledger.position() returns text
language plpgsql stable
as $$
begin
    if not exists (select from ledger.book where book > 1) then
        return (
            select concat_ws('.',
                'p1',
                left(replace(i.id::text, '-', ''), 16),
                s.seq,
                left(replace(s.batch_id::text, '-', ''), 12),
                ledger.event_horizon(),
                0)
            from public.installation i
            cross join (select seq, batch_id from ledger.seal where book = 1 order by seq desc limit 1) s
        );
    end if;
    return (
        select concat_ws('.',
            'p1',
            left(replace(i.id::text, '-', ''), 16),
            (
                select string_agg(s.seq || '.' || left(replace(s.batch_id::text, '-', ''), 12), '.' order by b.book)
                from ledger.book b
                cross join lateral ledger.last_seal(b.book) s
            ),
            ledger.event_horizon(),
            0)
        from public.installation i
    );
end
$$;

-- As before.
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
        cross join lateral last_seal(b.book) s
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

-- As before.
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
    cross join lateral last_seal(b.book, v_part.end_seq) s
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

-- As before.
create or replace function ledger.finish_archive(p_first bigint) returns void
language plpgsql
set search_path = ledger, pg_catalog, pg_temp
set lock_timeout = '3s'
as $$
declare
    v_part partition;
    v_behind text;
    v_now timestamptz := clock_timestamp();
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
    update partition set archived_as = 'archived_' || v_part.name, name = rest, archived_at = v_now
    where first_seq = p_first;
end
$$;

-- As before, but the time of a posting to several books is kept by the transaction, not found by the transaction id of its rows,
-- which differs between servers. The seal is inserted by a statement without a query, because Citus miscounts the rows of the other.
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
    v_hash bytea;
    v_several boolean;
    v_open boolean;
    v_sealed int;
begin
    -- A posting to several books takes this lock exclusively, which makes it wait for the batches in progress only.
    perform pg_advisory_xact_lock_shared(1885434485, p_book);
    select
        exists (select from book where book > 1),
        exists (select from partition where name = 'transfer_open' and first_seq <= p_prev_seq and v_seq < end_seq)
    into v_several, v_open;
    if v_several and coalesce(cardinality(p_home), 0) = 0 then
        -- The account of another book would be taken for an account of this one.
        if p_home is null or exists (
            select from unnest(p_debit || p_credit) id
            where observer.wallet(id) >> 44 <> p_book - 1
        ) then
            raise exception 'a program that knows one book cannot write to several' using errcode = '55000';
        end if;
    end if;

    if cardinality(p_home) > 0 then
        -- All books of a posting get the same time, so that the total of all wallets is right at any moment. The first batch of the
        -- transaction decides on it.
        select greatest(clock_timestamp(), max(h.at)) into v_at from book b cross join lateral last_seal(b.book) h;
        -- In microseconds, because the text of a timestamp depends on the settings of the session. Whoever forges it gets an earlier
        -- time at most.
        v_at := least(v_at, '2000-01-01 00:00Z'::timestamptz
            + nullif(current_setting('revwallet.posted_at', true), '')::bigint * interval '1 microsecond');
        perform set_config('revwallet.posted_at',
            (extract(epoch from v_at - '2000-01-01 00:00Z'::timestamptz) * 1000000)::bigint::text, true);
    end if;

    select
        greatest(coalesce(v_at, clock_timestamp()), prev.at),
        sha256('\x01'::bytea || prev.hash || timestamptz_send(prev.at) || int8send(v_seq) || uuid_send(p_batch) || p_content)
    into v_at, v_hash
    from seal prev
    where prev.book = p_book and prev.seq = p_prev_seq and prev.batch_id = p_prev_batch;
    if found then
        insert into seal (seq, prev_seq, at, batch_id, book, hash)
        values (v_seq, p_prev_seq, v_at, p_batch, p_book, v_hash)
        on conflict do nothing;
        get diagnostics v_sealed = row_count;
    end if;

    if v_sealed is distinct from 1 then
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

    if v_open then
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

-- As before, but one book after the other.
create or replace function observer.of_wallet(wallet text) returns setof observer.transfer
language plpgsql stable security definer set search_path = '' as $$
declare
    v_account bigint;
    v_book int;
    v_found observer.transfer[] := '{}';
begin
    if wallet !~ '^[0-9]{1,15}$' then
        return;
    end if;
    foreach v_account in array array[wallet::bigint, -(1::bigint << 40) - wallet::bigint] loop
        for v_book in select b.book from ledger.book b loop
            v_found := v_found
                || array(select t from observer.transfer t
                    where t.book = v_book and t.debit = v_account order by t.transfer desc limit 100)
                || array(select t from observer.transfer t
                    where t.book = v_book and t.credit = v_account order by t.transfer desc limit 100);
        end loop;
    end loop;
    return query select distinct f.* from unnest(v_found) f order by f.at desc, f.transfer desc limit 100;
end
$$;

create or replace function observer.of_transfer(id text) returns setof observer.transfer
language plpgsql stable security definer set search_path = '' as $$
declare
    v_transfer bigint;
    v_legs smallint;
begin
    if id !~ '^[0-9]{1,18}$' then
        return;
    end if;
    select t.transfer - t.leg, t.legs into v_transfer, v_legs
    from observer.transfer t
    where t.book = ledger.book_of(id::bigint) and t.transfer = id::bigint;
    return query
    select t.*
    from observer.transfer t
    where t.book = ledger.book_of(v_transfer) and t.transfer between v_transfer and v_transfer + v_legs - 1
    order by t.transfer;
end
$$;

create or replace function observer.of_trace(trace text, since timestamptz, until timestamptz) returns setof observer.transfer
language plpgsql stable security definer set search_path = '' as $$
declare
    v_book int;
    v_first bigint;
    v_last bigint;
    v_found observer.transfer[] := '{}';
begin
    for v_book in select b.book from ledger.book b order by b.book loop
        select coalesce(max(s.seq), (v_book - 1)::bigint << 44) into v_first
        from ledger.seal s where s.book = v_book and s.at < since;
        select coalesce(max(s.seq), (v_book - 1)::bigint << 44) into v_last
        from ledger.seal s where s.book = v_book and s.at <= until;
        v_found := v_found || array(
            select t from observer.transfer t
            where t.book = v_book and t.transfer > v_first and t.transfer <= v_last and t.trace_id = lower(trace)
            order by t.transfer
            limit 1000);
    end loop;
    return query select f.* from unnest(v_found) f order by f.transfer limit 1000;
end
$$;
