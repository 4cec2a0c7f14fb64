-- The ledger: an append-only book of transfers.
--
-- Nothing here is ever updated or deleted, so there is no balance column: the balance of an account is the running balance on the last transfer that touched it, and history is the same index read backwards.
-- Money is written by one function, `ledger.post`, one call a batch.
-- The constraints repeat the rules that the program decides by, so that a fault in it cannot reach the disk.

create schema ledger;

-- A total order of transfers. Its row is locked by who lost a race and never changed.
create table ledger.book (
    book int not null constraint book_pkey primary key,
    name text not null constraint book_name_key unique,
    constraint book_positive check (book > 0)
);

-- The end of a batch, and of the book when it is the last.
create table ledger.seal (
    seq bigint not null,
    -- The seal this one stands on. Unique, so a book cannot fork: the compare-and-set of the whole ledger.
    prev_seq bigint,
    -- The server's clock, but never earlier than the seal before.
    at timestamptz not null,
    -- Drawn by the writer, so that it recognizes its own work after a broken connection.
    batch_id uuid not null,
    book int not null,
    hash bytea not null,
    constraint seal_pkey primary key (book, seq),
    constraint seal_prev_key unique (book, prev_seq),
    -- Leads back to the seal 0 that `create_book` makes, so a seal needs no key to `book` as well: checking that
    -- one would wait for whoever holds the book's lock, who in turn waits for this very seal.
    constraint seal_prev_fkey foreign key (book, prev_seq) references ledger.seal (book, seq),
    constraint seal_only_the_first_stands_alone check ((seq = 0) = (prev_seq is null)),
    constraint seal_grows check (prev_seq < seq),
    constraint seal_hash_is_sha256 check (octet_length(hash) = 32)
);

-- From a moment to the seq that was the head then.
create index seal_at on ledger.seal (book, at, seq);

-- One row for each posting that came with an idempotency key.
create table ledger.posting (
    first_seq bigint not null,
    last_seq bigint not null,
    -- Of who called, which operation and the key; 16 bytes are half the index of 32.
    key_hash uuid not null,
    -- Of the request as it was understood: another request under the same key is refused.
    content_hash uuid not null,
    book int not null,
    constraint posting_key unique (key_hash, book),
    constraint posting_pkey primary key (book, first_seq),
    constraint posting_range check (0 < first_seq and first_seq <= last_seq)
);

-- One movement, and both balances after it.
-- Eight-byte columns first: no padding. What is usually null comes last.
create table ledger.transfer (
    seq bigint not null,
    debit bigint not null,
    credit bigint not null,
    -- Minor units of the currency that both accounts share; 0 where an account changes its state.
    amount bigint not null,
    debit_balance bigint not null,
    credit_balance bigint not null,
    at timestamptz not null,
    book int not null,
    kind smallint not null,
    -- The legs that make up one transfer are neighbours: leg 0 has its id, and `legs` says how many follow.
    leg smallint not null,
    legs smallint not null,
    -- The trace of the request that made it.
    trace_id uuid,
    -- The transfer this one undoes or completes.
    linked bigint,
    -- The very bytes that were given, because the hash of the seal covers them.
    metadata json,
    constraint transfer_pkey primary key (book, seq),
    constraint transfer_seq_positive check (0 < seq),
    -- Kinds below 10 change a state, the others move money.
    constraint transfer_amount check (
        case when kind < 10 then amount = 0 and debit = credit else 0 < amount and debit <> credit end
    ),
    -- System accounts (-2^40 < id < 0) may go below zero, all others may not.
    constraint transfer_floor check (0 <= debit_balance or (-1099511627776 < debit and debit < 0)),
    constraint transfer_ceiling check (
        credit_balance <= 9007199254740991 or (-1099511627776 < credit and credit < 0)
    ),
    constraint transfer_leg check (0 <= leg and leg < legs and leg < seq),
    constraint transfer_linked check (linked < seq)
);

-- The last transfer that touched an account is at the end of one of these two.
-- What differs most comes first: comparing the book before it would be in vain at each step of a search.
create index transfer_debit on ledger.transfer (debit, book, seq);
create index transfer_credit on ledger.transfer (credit, book, seq);

-- The last change of state of an account.
create index transfer_state on ledger.transfer (book, debit, seq) where kind < 10;

-- What was refunded, captured or voided.
create index transfer_linked on ledger.transfer (book, linked, seq) where linked is not null;

-- What never changes about an account. Its state and its balance are in `transfer`.
create table ledger.account (
    account bigint not null,
    -- The transfer by which it came to be.
    seq bigint not null,
    book int not null,
    decimals smallint not null,
    currency text not null,
    constraint account_pkey primary key (book, account),
    constraint account_currency check (currency ~ '^[A-Z0-9]{2,6}$'),
    constraint account_decimals check (0 <= decimals and decimals <= 18),
    constraint account_seq_positive check (0 < seq),
    constraint account_not_zero check (account <> 0)
);

-- The accounts that a batch brought into being, for who follows the book.
create index account_seq on ledger.account (book, seq);

-- Ids of customers' accounts, drawn before they are opened.
create sequence ledger.account_id as bigint;

-- How far a named reader of the book has come.
create table ledger.cursor (
    book int not null,
    name text not null,
    -- The last transfer that took effect; for a reader of events, the transaction of the last one.
    seq bigint not null,
    -- The last event of that transaction; 0 for a reader of transfers.
    event bigint not null default 0,
    at timestamptz not null default now(),
    -- The process that moved it last goes on with it: what it has in memory is good only there.
    holder uuid,
    constraint cursor_pkey primary key (book, name),
    constraint cursor_not_negative check (0 <= seq and 0 <= event)
);

-- What is added to the server's transaction ids. A database that was restored elsewhere may run with smaller ids than those it holds.
create table ledger.event_shift (
    shift bigint not null default 0,
    the_only boolean not null default true constraint event_shift_pkey primary key,
    constraint event_shift_one_row check (the_only)
);
insert into ledger.event_shift default values;

-- The transaction that writes now, as events count them.
create function ledger.event_xid() returns bigint
language sql stable
set search_path = ledger, pg_catalog, pg_temp
as $$ select pg_current_xact_id()::text::bigint + shift from event_shift $$;

-- Every transaction below has ended.
create function ledger.event_horizon() returns bigint
language sql stable
set search_path = ledger, pg_catalog, pg_temp
as $$ select pg_snapshot_xmin(pg_current_snapshot())::text::bigint + shift from event_shift $$;

-- Events that are no money. Ids are drawn before the commit, so readers go by (xid, id) and stop below the oldest transaction that still runs.
create table ledger.event (
    id bigint generated always as identity,
    xid bigint not null default ledger.event_xid(),
    at timestamptz not null default clock_timestamp(),
    trace_id uuid,
    book int not null,
    topic text not null,
    body json not null,
    constraint event_pkey primary key (book, xid, id)
);

-- To be called when a program starts: moves the shift so that what is written now comes after what is there.
create function ledger.mend_event_shift() returns void
language sql security definer
set search_path = ledger, pg_catalog, pg_temp
as $$
    update event_shift
    set shift = shift + last.xid - event_xid() + 1
    from (
        select max(e.xid) as xid
        from book b
        cross join lateral (select xid from event where book = b.book order by xid desc limit 1) e
    ) last
    where last.xid > event_xid();
$$;

-- Append-only, for every role including the owner.

create function ledger.refuse_change() returns trigger
language plpgsql as $$
begin
    raise exception 'ledger.% is append-only', tg_table_name using errcode = 'RW000';
end
$$;

do $$
declare
    t text;
begin
    foreach t in array array['book', 'seal', 'posting', 'transfer', 'account', 'event'] loop
        execute format(
            'create trigger %I before update or delete or truncate on ledger.%I
             for each statement execute function ledger.refuse_change()',
            t || '_is_append_only', t);
        -- Also when a replication role or a tool has switched ordinary triggers off.
        execute format('alter table ledger.%I enable always trigger %I', t, t || '_is_append_only');
    end loop;
end
$$;

-- The only way to write money.
--
-- Null when somebody else has sealed `p_prev_seq`, or when it was not sealed by `p_prev_batch`: a batch in the pipe behind one that failed must not stand on a stranger's batch that happens to end at the same seq.
-- With `p_strict` that is an error, so that the transaction it is part of cannot commit.
-- Without `p_notify` nobody is woken: the writer promises a notification soon after.
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
    -- These two may be shorter than the others: what is missing is null.
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

    insert into transfer (
        seq, debit, credit, amount, debit_balance, credit_balance, at,
        book, kind, leg, legs, trace_id, linked, metadata)
    select
        p_prev_seq + n, p_debit[n], p_credit[n], p_amount[n], p_debit_balance[n], p_credit_balance[n], v_at,
        p_book, p_kind[n], p_leg[n], p_legs[n], p_trace[n], p_linked[n], p_metadata[n]::json
    from generate_series(1, cardinality(p_debit)) n;

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

-- What a writer missed since `p_after`, after waiting for its turn when `p_lock`: one round trip for who lost a race.
-- The head, and the transfers behind `p_after` in their order, unless there are more than `p_max`.
-- One row of arrays: with many processes on one book everybody reads what the others write, under the lock.
create function ledger.catch_up(p_book int, p_after bigint, p_max bigint, p_lock boolean)
returns table (
    head_seq bigint, head_batch uuid,
    kind smallint[], debit bigint[], credit bigint[], debit_balance bigint[], credit_balance bigint[])
language plpgsql security definer
set search_path = ledger, pg_catalog, pg_temp
as $$
begin
    if p_lock then
        -- Its own statement: the next one must see what was committed while this waited.
        perform 1 from book where book.book = p_book for no key update;
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

-- Ends a companion's statement: an error, and so a rollback, unless every row took effect.
create function ledger.all_took(p_rows int, p_took int[]) returns void
language plpgsql
set search_path = ledger, pg_catalog, pg_temp
as $$
declare
    v_missed text;
begin
    if p_rows is distinct from cardinality(p_took) then
        select string_agg(n::text, ',' order by n) into v_missed
        from generate_series(0, p_rows - 1) n
        where n <> all (p_took);
        raise exception 'not every companion took effect' using errcode = 'RW002', detail = coalesce(v_missed, '');
    end if;
end
$$;

-- A further book, with the seal that its first batch stands on.
create function ledger.create_book(p_book int, p_name text) returns void
language sql
set search_path = ledger, pg_catalog, pg_temp
as $$
    insert into book (book, name) values (p_book, p_name);
    insert into seal (seq, prev_seq, at, batch_id, book, hash)
    values (0, null, clock_timestamp(), '00000000-0000-0000-0000-000000000000', p_book, sha256(int4send(p_book)));
$$;

select ledger.create_book(1, 'main');

-- Roles: whoever runs the migrations owns the tables; the program works as a role that can only read them and call `post`.
-- A cluster has one set of roles but many databases, so another migration may be creating it right now.
do $$
declare
    v_try int;
begin
    for v_try in 1..20 loop
        begin
            if not exists (select from pg_roles where rolname = 'revwallet_app') then
                create role revwallet_app nologin;
            end if;
            if not pg_has_role(current_user, 'revwallet_app', 'member') then
                execute format('grant revwallet_app to %I', current_user);
            end if;
            exit;
        exception
            when duplicate_object or unique_violation or internal_error then
                perform pg_sleep(0.05);
            when insufficient_privilege then
                raise notice 'no role revwallet_app: this user may not create roles, so only triggers keep the ledger append-only';
                exit;
        end;
    end loop;
end
$$;

revoke all on all functions in schema ledger from public;

do $$
begin
    if not exists (select from pg_roles where rolname = 'revwallet_app') then
        return;
    end if;

    grant usage on schema public, ledger to revwallet_app;
    -- The other slices' tables are ordinary ones, those to come included.
    grant select, insert, update, delete on all tables in schema public to revwallet_app;
    grant usage, select on all sequences in schema public to revwallet_app;
    alter default privileges grant usage on schemas to revwallet_app;
    alter default privileges in schema public grant select, insert, update, delete on tables to revwallet_app;
    alter default privileges in schema public grant usage, select on sequences to revwallet_app;

    grant select on all tables in schema ledger to revwallet_app;
    grant usage on sequence ledger.account_id to revwallet_app;
    grant insert on ledger.event to revwallet_app;
    grant insert, update on ledger.cursor to revwallet_app;
    grant execute on function ledger.post, ledger.catch_up, ledger.all_took,
        ledger.event_xid, ledger.event_horizon, ledger.mend_event_shift to revwallet_app;
end
$$;
