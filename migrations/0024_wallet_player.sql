-- Finds every main wallet of a player, closed ones included.
create index wallet_player on wallet (player, currency) where player is not null;
