-- A deposit the usual way: a balance row under a row lock, an entry, a unique key; one commit each.

create table account (id int primary key, balance bigint not null check (balance >= 0));

create table entry (
    id bigint generated always as identity primary key,
    account int not null references account (id),
    amount bigint not null,
    balance bigint not null,
    key uuid not null unique,
    at timestamptz not null default now()
);

create index entry_account on entry (account, id);

create function deposit(p_account int, p_amount bigint, p_key uuid) returns bigint
language plpgsql as $$
declare
    v_balance bigint;
begin
    update account set balance = balance + p_amount where id = p_account returning balance into v_balance;
    insert into entry (account, amount, balance, key) values (p_account, p_amount, v_balance, p_key);
    return v_balance;
end
$$;

create function prepare_baseline(p_accounts int) returns void
language sql as $$
    insert into account select n, 0 from generate_series(1, p_accounts) n;
$$;
