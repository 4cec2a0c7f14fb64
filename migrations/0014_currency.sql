-- Currencies that this database has used or was started with: a program that is started without `--currency` still knows
-- them, and one with other decimals is refused, because amounts are stored in minor units.

create table currency (
    code text constraint currency_pkey primary key,
    decimals smallint not null,
    constraint currency_code check (code ~ '^[A-Z0-9]{2,6}$'),
    constraint currency_decimals check (0 <= decimals and decimals <= 18)
);

insert into currency (code, decimals)
select distinct currency, decimals from ledger.account
on conflict do nothing;
