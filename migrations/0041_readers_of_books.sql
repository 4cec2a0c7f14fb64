-- Readers of several books.

-- The book of a transfer, by its seq, and of a customer account, by its id.
create function ledger.book_of(p_id bigint) returns int
language sql immutable parallel safe
return (p_id >> 44)::int + 1;

-- Creates the books up to `p_count` that are missing, each with a partition for `p_rows` transfers. Returns the number of books.
create function ledger.create_books(p_count int, p_rows bigint) returns int
language plpgsql security definer
set search_path = ledger, pg_catalog, pg_temp
as $$
declare
    v_books int;
begin
    lock table book in share row exclusive mode;
    select count(*) into v_books from book;
    for v_book in v_books + 1 .. p_count loop
        perform create_book(v_book, 'book ' || v_book, p_rows);
        -- A reader begins with the book, even if its process starts later.
        insert into cursor (book, name, channel, seq)
        select v_book, name, channel, (v_book - 1)::bigint << 44 from cursor where book = 1 and channel = 'book';
    end loop;
    return greatest(v_books, p_count);
end
$$;

-- The position of everything that the statement sees: the seal of each book, and the first transaction whose events may be missing.
create function ledger.position() returns text
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
                cross join lateral (
                    select seq, batch_id from ledger.seal where book = b.book order by seq desc limit 1
                ) s
            ),
            ledger.event_horizon(),
            0)
        from public.installation i
    );
end
$$;

revoke all on function ledger.book_of, ledger.create_books, ledger.position from public;

do $$
begin
    if exists (select from pg_roles where rolname = 'revwallet_app') then
        grant execute on function ledger.book_of, ledger.create_books, ledger.position to revwallet_app;
    end if;
end
$$;

-- A webhook receives the transfers after the end of each book at its creation: `from_seq` for the first book, these for the others.
-- It receives all transfers of a book that was created later.
alter table webhook add column from_seqs bigint[] not null default '{}';

-- As before, but of a transfer between books only what concerns the wallets of this book, under the id of the transfer.
create or replace function raises(p_book int, p_after bigint, p_end bigint)
returns table (
    seq bigint, transfer bigint, trace_id uuid, wallet bigint, player text, currency text, balance bigint
)
language plpgsql stable
set search_path = public, pg_temp
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off
set jit = off set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    if not exists (select from wallet w where w.player is not null) then
        return;
    end if;
    return query
    with credited as materialized (
        select t.seq, coalesce(t.home, t.seq) - t.leg as transfer, t.trace_id, t.credit, t.credit_balance
        from ledger.transfer t
        where t.book = p_book and t.seq > p_after and t.seq <= p_end and t.amount > 0 and t.credit > 0
            and t.credit >> 44 = p_book - 1
            and t.debit <> -(1::bigint << 40) - t.credit
    ), players as materialized (
        select w.id, w.player, w.currency,
            coalesce((
                select true from ledger.transfer h
                where h.book = p_book and h.credit = -(1::bigint << 40) - w.id limit 1
            ), false) as has_held
        from (select distinct c.credit from credited c) c
        cross join lateral (select w.id, w.player, w.currency from wallet w where w.id = c.credit offset 0) w
        where w.player is not null
    )
    select t.seq, t.transfer, t.trace_id, w.id, w.player, w.currency, t.credit_balance + coalesce(h.balance, 0)
    from credited t
    join players w on w.id = t.credit
    left join lateral (
        select case when last.credit = -(1::bigint << 40) - t.credit then last.credit_balance else last.debit_balance end
            as balance
        from (
            (select l.seq, l.credit, l.credit_balance, l.debit_balance from ledger.transfer l
            where l.book = p_book and l.credit = -(1::bigint << 40) - t.credit and l.seq <= t.seq
            order by l.credit desc, l.book desc, l.seq desc limit 1)
            union all
            (select l.seq, l.credit, l.credit_balance, l.debit_balance from ledger.transfer l
            where l.book = p_book and l.debit = -(1::bigint << 40) - t.credit and l.seq <= t.seq
            order by l.debit desc, l.book desc, l.seq desc limit 1)
        ) last
        where w.has_held
        order by last.seq desc limit 1
    ) h on true;
end
$$;

-- The book of an account; null for an account that each book has.
create function observer.book(account bigint) returns int
language sql immutable as $$
    select case
        when observer.wallet(account) is not null then (observer.wallet(account) >> 44)::int + 1
        -- Payables, hot wallets and prizes.
        when account <= -(1::bigint << 54) or -account >> 32 in (3, 7) then 1
    end
$$;

-- As before, but of all books: each transfer once, without balances that another book knows.
create or replace view observer.transfer as
select
    t.seq as transfer,
    t.at,
    observer.kind(t.kind) as kind,
    observer.wallet(t.debit) as from_wallet,
    observer.wallet(t.credit) as to_wallet,
    t.amount as minor_units,
    a.currency,
    case when observer.book(t.debit) <> t.book then null else t.debit_balance end as from_balance,
    case when observer.book(t.credit) <> t.book then null else t.credit_balance end as to_balance,
    t.linked,
    replace(t.trace_id::text, '-', '') as trace_id,
    t.debit,
    t.credit,
    t.leg,
    t.legs,
    t.book
from ledger.transfer t
left join ledger.account a on a.book = t.book and a.account = t.debit
where t.home is null
    -- Of the archive only some rows are there.
    and not exists (select from ledger.archive r where r.book = t.book and t.seq <= r.until_seq);

create or replace function observer.of_wallet(wallet text) returns setof observer.transfer
language sql stable security definer set search_path = '' as $$
    with asked as (
        select unnest(array[id, -(1::bigint << 40) - id]) as account
        from (select case when wallet ~ '^[0-9]{1,15}$' then wallet::bigint end as id) given
    ), found as (
        select f.* from asked cross join ledger.book b cross join lateral (
            (select * from observer.transfer t where t.book = b.book and debit = account order by transfer desc limit 100)
            union
            (select * from observer.transfer t where t.book = b.book and credit = account order by transfer desc limit 100)
        ) f
    )
    select distinct * from found order by at desc, transfer desc limit 100
$$;

create or replace function observer.of_transfer(id text) returns setof observer.transfer
language sql stable security definer set search_path = '' as $$
    select legs.*
    from (select case when id ~ '^[0-9]{1,18}$' then id::bigint end as id) asked
    join observer.transfer first on first.book = ledger.book_of(asked.id) and first.transfer = asked.id
    join observer.transfer legs on legs.book = first.book
        and legs.transfer between first.transfer - first.leg and first.transfer - first.leg + first.legs - 1
    order by legs.transfer
$$;

create or replace function observer.of_trace(trace text, since timestamptz, until timestamptz) returns setof observer.transfer
language sql stable security definer set search_path = '' as $$
    select t.*
    from ledger.book b
    cross join lateral (
        select
            coalesce((select max(seq) from ledger.seal where book = b.book and at < since), (b.book - 1)::bigint << 44) as first,
            coalesce((select max(seq) from ledger.seal where book = b.book and at <= until), (b.book - 1)::bigint << 44) as last
    ) span
    join observer.transfer t on t.book = b.book and t.transfer > span.first and t.transfer <= span.last
    where t.trace_id = lower(trace)
    order by t.transfer
    limit 1000
$$;

-- As before, but all batches of a transaction get the same time, and the accounts of a batch are checked to be of its book.
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
begin
    -- A posting to several books takes this lock exclusively, which makes it wait for the batches in progress only.
    perform pg_advisory_xact_lock_shared(1885434485, p_book);
    if coalesce(cardinality(p_home), 0) = 0 and exists (select from book where book > 1) then
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
        select coalesce(
            max(head.at) filter (where head.xmin = pg_current_xact_id()::xid),
            greatest(clock_timestamp(), max(head.at)))
        into v_at
        from book b
        cross join lateral (select s.at, s.xmin from seal s where s.book = b.book order by s.seq desc limit 1) head;
    end if;

    insert into seal (seq, prev_seq, at, batch_id, book, hash)
    select
        v_seq, p_prev_seq, greatest(coalesce(v_at, clock_timestamp()), prev.at), p_batch, p_book,
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
