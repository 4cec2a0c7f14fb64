-- Players: registered users and guests, and the main wallet of each player in each currency.

-- One key for both, so that a registration never takes an id that a guest holds, and no guest takes the id of a user.
create table player (
    -- As clients write it; for a user, the number of the user.
    id text not null,
    created_at timestamptz not null default now(),
    -- Null for a guest.
    app_user bigint,
    constraint player_pkey primary key (id),
    constraint player_user_key unique (app_user),
    -- Deferred, because the player is inserted before the user.
    constraint player_user_fkey foreign key (app_user) references app_user (id) on delete cascade
        deferrable initially deferred,
    constraint player_id_length check (char_length(id) between 1 and 64),
    constraint player_user_id check (app_user is null or id = app_user::text)
);

insert into player (id, app_user, created_at) select id::text, id, created_at from app_user;

-- Gives a new user an id that no guest holds.
create function claim_player_id() returns trigger
language plpgsql as $$
begin
    for attempt in 1..10000 loop
        insert into player (id, app_user) values (new.id::text, new.id) on conflict do nothing;
        if found then
            return new;
        end if;
        -- Growing steps pass a range of ids that guests claimed on purpose.
        for step in 1..least(attempt, 100) loop
            new.id := nextval(pg_get_serial_sequence('public.app_user', 'id'));
        end loop;
    end loop;
    raise exception 'guests hold the next 10000 ids of users' using errcode = 'RW001';
end
$$;

create trigger app_user_is_player before insert on app_user
    for each row execute function claim_player_id();

-- A user without a password is treated as a guest, and does not reserve the e-mail address.
alter table app_user alter column password_hash drop not null;
create unique index app_user_email_reserved on app_user (lower(email)) where password_hash is not null;
drop index app_user_email;

alter table wallet
    -- The player whose main wallet it is, or was until it was closed.
    add column player text constraint wallet_player_fkey references player (id),
    -- Whether `/api/wallet`, purchases and the exchange use it.
    add column main boolean not null default false,
    add constraint wallet_main_has_player check (not main or player is not null);

update wallet
set main = true, player = app_user::text
where id in (
    select distinct on (app_user, currency) id
    from wallet
    where app_user is not null and closed_at is null
    order by app_user, currency, id
);

-- The previous version of the program does not clear `main` when it closes a wallet.
create unique index wallet_main on wallet (player, currency) where main and closed_at is null;

-- Balance of a customer, held money included: of its account and of the hold account, which is `-2^40 - account`.
-- In PL/pgSQL, because its plans are kept for the session.
create function ledger.total_balance(p_book int, p_account bigint) returns bigint
language plpgsql stable
as $$
begin
    return (
        select sum(coalesce(
            case when coalesce(c.seq, 0) < d.seq then d.debit_balance else c.credit_balance end, 0
        ))::bigint
        from (values (p_account), (-1099511627776 - p_account)) a (account)
        left join lateral (
            select t.seq, t.debit_balance from ledger.transfer t
            where t.book = p_book and t.debit = a.account
            order by t.seq desc limit 1
        ) d on true
        left join lateral (
            select t.seq, t.credit_balance from ledger.transfer t
            where t.book = p_book and t.credit = a.account
            order by t.seq desc limit 1
        ) c on true
    );
end
$$;

revoke all on function ledger.total_balance from public;

do $$
begin
    if exists (select from pg_roles where rolname = 'revwallet_app') then
        grant execute on function ledger.total_balance to revwallet_app;
    end if;
end
$$;
