-- Lists of wallets by currency, in the order of their ids: a currency of few wallets must not cost a scan of all of them.

create index wallet_currency on wallet (currency, id);

-- For callers that see only wallets without a user.
create index wallet_currency_unowned on wallet (currency, id) where app_user is null;
