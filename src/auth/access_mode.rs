//! The access policy of an installation: the permissions of anonymous clients and of signed-in users.

use super::TrustedProxies;

/// Rule for access to wallets that belong to no user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Access {
    /// Any client that can connect may use wallets that belong to no user.
    Open,
    /// Only callers with the required scope may use wallets that belong to no user.
    Closed,
}

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// Access to wallets that belong to no user: open to every client, or closed to requests without a credential
    /// [default: open with the embedded database, else closed].
    #[arg(long, env = "REVWALLET_ACCESS", global = true, value_enum)]
    pub access: Option<Access>,
    /// Let users deposit into their own wallets [default: true with open access, else false].
    #[arg(long, env = "REVWALLET_SELF_SERVICE_FUNDING", global = true, num_args = 0..=1, default_missing_value = "true")]
    pub self_service_funding: Option<bool>,
    /// Networks of trusted proxies, separated by commas, such as `10.0.0.0/8,192.168.1.7/32`. The `X-Forwarded-For`
    /// header of these proxies is trusted.
    #[arg(
        long,
        env = "REVWALLET_TRUSTED_PROXIES",
        global = true,
        default_value = "",
        hide_default_value = true
    )]
    pub trusted_proxies: TrustedProxies,
}

/// Access rules of the installation, which apply to every caller.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    pub access: Access,
    pub self_service_funding: bool,
}

impl Policy {
    pub fn new(args: &AccessArgs, default: Access) -> Self {
        let access = args.access.unwrap_or(default);
        let self_service_funding = args.self_service_funding.unwrap_or(access == Access::Open);
        Self { access, self_service_funding }
    }
}
