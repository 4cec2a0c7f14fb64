-- The expiry of holds walks through what is due a page at a time: by expiry, then by id.

create index hold_due on hold (expires_at, id) where state = 'open';
drop index hold_expiry;
