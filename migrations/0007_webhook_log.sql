-- The log of deliveries is kept for a while, and what waits without a job is found.

create index delivery_age on delivery (created_at) where state <> 'pending';
