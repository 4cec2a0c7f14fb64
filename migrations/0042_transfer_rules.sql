-- One check for all rules of a transfer, and one for the rules of a seal.
--
-- Postgres parses the text of every check again for every statement. That took a third of a call of `ledger.post` with one transfer.
-- The checks now contain only what ordinary rows need. A function decides on all other rows, and names the rule that is broken.

lock table ledger.book, ledger.seal, ledger.transfer in access exclusive mode;

-- Whether an account is a wallet or a hold account of this book: its balance has a floor and a ceiling there. What a book records
-- about an account of another book is only what the two have exchanged, which has neither.
create function ledger.has_bounds(p_account bigint, p_book int) returns boolean
language plpgsql immutable parallel safe
as $$
begin
    return case
        when 0 < p_account then p_account >> 44 = p_book - 1
        when -18014398509481984 < p_account and p_account <= -1099511627776
            then (-1099511627776 - p_account) >> 44 = p_book - 1
        else false
    end;
end
$$;

-- Raises an error if a transfer breaks a rule, otherwise returns true.
create function ledger.is_valid_transfer(
    p_seq bigint,
    p_debit bigint,
    p_credit bigint,
    p_amount bigint,
    p_debit_balance bigint,
    p_credit_balance bigint,
    p_book int,
    p_kind smallint,
    p_leg smallint,
    p_legs smallint,
    p_linked bigint,
    p_home bigint
) returns boolean
language plpgsql immutable parallel safe
as $$
declare
    v_broken text := case
        when p_seq <= 0 then 'transfer_seq_positive'
        -- Kinds below 10 change a state, the others move money.
        when p_kind < 10 and (p_amount <> 0 or p_debit <> p_credit) then 'transfer_amount'
        when 10 <= p_kind and (p_amount <= 0 or p_debit = p_credit) then 'transfer_amount'
        when p_debit_balance < 0 and ledger.has_bounds(p_debit, p_book) then 'transfer_floor'
        -- The exchange's own funds and the reserve for prizes, which are in book 1.
        when p_debit_balance < 0 and p_book = 1
            and -1099511627776 < p_debit and p_debit < 0 and -p_debit >> 32 in (3, 7) then 'transfer_reserve_floor'
        when 9007199254740991 < p_credit_balance and ledger.has_bounds(p_credit, p_book) then 'transfer_ceiling'
        when p_leg < 0 or p_legs <= p_leg or (p_seq <= p_leg and p_home is null) then 'transfer_leg'
        when p_seq <= p_linked and p_linked >> 44 = p_book - 1 then 'transfer_linked'
        when p_home >> 44 = p_book - 1 then 'transfer_home'
    end;
begin
    if v_broken is not null then
        raise exception 'transfer % of book % breaks the rule %', p_seq, p_book, v_broken
            using errcode = 'check_violation', schema = 'ledger', table = 'transfer', constraint = v_broken;
    end if;
    return true;
end
$$;

-- Sets the rules of a table of transfers, in place of those before this migration.
create or replace function ledger.set_transfer_rules(p_name text) returns void
language plpgsql
set search_path = ledger, pg_catalog, pg_temp
as $$
begin
    -- Not valid, because checking all rows takes long, and each row satisfies the former rules, which are the same.
    execute format($sql$
        alter table %I
            drop constraint if exists transfer_seq_positive,
            drop constraint if exists transfer_amount,
            drop constraint if exists transfer_floor,
            drop constraint if exists transfer_ceiling,
            drop constraint if exists transfer_prize_floor,
            drop constraint if exists transfer_hot_floor,
            drop constraint if exists transfer_leg,
            drop constraint if exists transfer_linked,
            drop constraint if exists transfer_home,
            add constraint transfer_rules check (
                -- The first condition is met by a movement of money out of a wallet or the outside world, within one book.
                10 <= kind and 0 < amount and debit <> credit
                and (0 <= debit_balance or (-8589934592 < debit and debit < 0)) and credit_balance <= 9007199254740991
                and 0 <= leg and leg < legs and leg < seq and coalesce(linked, 0) < seq and home is null
                or ledger.is_valid_transfer(
                    seq, debit, credit, amount, debit_balance, credit_balance, book, kind, leg, legs, linked, home)
            ) not valid
    $sql$, p_name);
end
$$;
select ledger.set_transfer_rules('transfer');

-- Archives that have begun: the table that will replace the partition is not attached yet.
do $$
declare
    v_rest text;
begin
    for v_rest in select rest from ledger.partition where rest is not null and archived_at is null loop
        perform ledger.set_transfer_rules(v_rest);
    end loop;
end
$$;

-- Whether a seal without a predecessor is the first of its book. A seal with a predecessor is above it, and so is never the first.
create function ledger.is_first_seal(p_seq bigint, p_prev_seq bigint, p_hash bytea, p_book int) returns boolean
language plpgsql immutable parallel safe
as $$
begin
    return p_prev_seq is null and p_seq = (p_book - 1)::bigint << 44 and octet_length(p_hash) = 32;
end
$$;
alter table ledger.seal
    drop constraint seal_grows,
    drop constraint seal_hash_is_sha256,
    drop constraint seal_only_the_first_stands_alone,
    add constraint seal_rules check (
        prev_seq is not null and prev_seq < seq and octet_length(hash) = 32 or ledger.is_first_seal(seq, prev_seq, hash, book)
    ) not valid;

-- As before, but for a table with the former rules.
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
        -- The table may have been archived before there were several books, or before this migration.
        execute format('alter table %I add column if not exists home bigint', v_part.archived_as);
        if not exists (
            select from pg_constraint
            where conrelid = format('ledger.%I', v_part.archived_as)::regclass and conname = 'transfer_rules'
        ) then
            perform set_transfer_rules(v_part.archived_as);
        end if;
        execute format('alter table %I validate constraint transfer_rules', v_part.archived_as);
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
