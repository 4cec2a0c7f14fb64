//! Newtypes for ids: a number in the database and in JSON rows, never confused with another id.

/// Declares newtypes around `i64` ids.
macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)+) => {
        $($(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(serde::Serialize, serde::Deserialize, sqlx::Type)]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(pub i64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        })+
    };
}

ids! {
    /// Id of a user.
    UserId;
    /// Id of an API key.
    ApiKeyId;
    /// Id of a wallet: that of its account in the book.
    WalletId;
    /// Id of a transfer: the seq of its first leg in the book.
    TransferId;
    /// Id of a hold: that of the transfer which placed it.
    HoldId;
    /// Id of a webhook.
    WebhookId;
    /// Id of a delivery of a webhook.
    DeliveryId;
    /// Id of a balance alert.
    AlertId;
}
