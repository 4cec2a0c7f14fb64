//! Options of a pipelined connection to the database, which can have many requests in flight. It uses the same server
//! and the same encryption as the connections of the connection pool.

use std::str::FromStr;

use anyhow::{anyhow, bail};
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;
use url::Url;

use super::tls::{self, Trust};

/// Names of URL parameters that apply only to the connections of the connection pool. A pipelined connection ignores
/// them.
const POOL_PARAMETERS: [&str; 1] = ["statement-cache-capacity"];

/// Options of a pipelined connection.
#[derive(Clone)]
pub struct Pipelined {
    pub config: Config,
    pub tls: MakeRustlsConnect,
}

impl std::fmt::Debug for Pipelined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.config.fmt(f)
    }
}

impl Pipelined {
    /// Creates the options of a connection through a Unix socket, which needs no encryption.
    pub fn local(mut config: Config) -> anyhow::Result<Self> {
        config.ssl_mode(SslMode::Disable);
        Ok(Self::new(config, tls::connector(Trust::Anonymous, None)?))
    }

    fn new(config: Config, tls: MakeRustlsConnect) -> Self {
        let mut options = Self { config, tls };
        // Each statement is planned only once, independently of its parameters.
        options.set_plan_cache_mode("force_generic_plan");
        options
    }

    /// Sets the Postgres setting `plan_cache_mode` of the connection.
    pub fn set_plan_cache_mode(&mut self, mode: &str) {
        let given = self.config.get_options().unwrap_or_default();
        let options = format!("{given} -c plan_cache_mode={mode}");
        self.config.options(options.trim_start());
    }
}

/// Parses a database URL. Its encryption parameters have the same names as in sqlx, the driver of the connection pool.
/// The URL may contain a password, so error messages never include the URL.
impl FromStr for Pipelined {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let unreadable = || {
            anyhow!("DATABASE_URL is malformed; write postgres://user:password@host:5432/database")
        };
        let mut url = Url::parse(text).map_err(|_| unreadable())?;
        let (mut mode, mut roots, mut others) = (None, None, Vec::new());
        for (name, value) in url.query_pairs() {
            match &*name {
                "sslmode" | "ssl-mode" => mode = Some(value.into_owned()),
                "sslrootcert" | "ssl-root-cert" | "ssl-ca" => roots = Some(value.into_owned()),
                "sslcert" | "ssl-cert" | "sslkey" | "ssl-key" => bail!(
                    "DATABASE_URL contains a client certificate, which is not supported; use a password"
                ),
                name if POOL_PARAMETERS.contains(&name) => {}
                name => others.push((name.to_owned(), value.into_owned())),
            }
        }
        url.set_query(None);
        if !others.is_empty() {
            url.query_pairs_mut().extend_pairs(others);
        }
        // The query string encodes a space as `+`, but this driver expects `%20`. Elsewhere in the URL, for example in
        // the password, `+` is literal.
        let query = url.query().map(|query| query.replace('+', "%20"));
        url.set_query(query.as_deref());
        let mut config: Config = url.as_str().parse().map_err(|_| {
            anyhow!(
                "DATABASE_URL has unsupported parameters; after `?`, use only host, port, options, sslmode and sslrootcert"
            )
        })?;
        let mode = mode.or_else(|| variable("PGSSLMODE"));
        let roots = roots.or_else(|| variable("PGSSLROOTCERT"));
        let (ssl, trust) = match mode.as_deref().unwrap_or("prefer").to_ascii_lowercase().as_str() {
            "disable" => (SslMode::Disable, Trust::Anonymous),
            "allow" | "prefer" => (SslMode::Prefer, Trust::Anonymous),
            "require" => (SslMode::Require, Trust::Anonymous),
            "verify-ca" => (SslMode::Require, Trust::Authority),
            "verify-full" => (SslMode::Require, Trust::Name),
            _ => bail!(
                "DATABASE_URL has an unknown sslmode; use disable, allow, prefer, require, verify-ca or verify-full"
            ),
        };
        config.ssl_mode(ssl);
        Ok(Self::new(config, tls::connector(trust, roots.as_deref())?))
    }
}

/// Returns the value of an environment variable of libpq, the PostgreSQL client library. The driver of the connection
/// pool (sqlx) reads the same variables.
#[expect(clippy::disallowed_methods, reason = "variables of libpq, not settings of ours")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sslmode_is_supported() {
        for (text, mode) in [
            ("", SslMode::Prefer),
            ("?sslmode=disable", SslMode::Disable),
            ("?sslmode=prefer&statement-cache-capacity=10", SslMode::Prefer),
            ("?sslmode=require", SslMode::Require),
            ("?ssl-mode=verify-full", SslMode::Require),
            ("?sslmode=verify-ca&options=-c%20geqo%3Doff", SslMode::Require),
        ] {
            let read: Pipelined =
                format!("postgres://u:p@db.example.com:5433/wallets{text}").parse().unwrap();
            assert_eq!(read.config.get_ssl_mode(), mode, "{text}");
            assert_eq!(
                (read.config.get_ports(), read.config.get_dbname()),
                (&[5433][..], Some("wallets"))
            );
            assert_eq!(
                read.config.get_options(),
                Some(if text.contains("options") {
                    "-c geqo=off -c plan_cache_mode=force_generic_plan"
                } else {
                    "-c plan_cache_mode=force_generic_plan"
                })
            );
        }
        let read: Pipelined =
            "postgres://u+1:p+%2B=@db/w?options=-c%20geqo%3Doff%2B".parse().unwrap();
        assert_eq!(
            (read.config.get_user(), read.config.get_password()),
            (Some("u+1"), Some(&b"p++="[..]))
        );
        assert_eq!(
            read.config.get_options(),
            Some("-c geqo=off+ -c plan_cache_mode=force_generic_plan")
        );
        for text in ["?sslmode=maybe", "?sslcert=x", "?sslmode=verify-full&sslrootcert=/nowhere"] {
            let error = format!("postgres://u:hush@db/w{text}").parse::<Pipelined>().unwrap_err();
            assert!(!format!("{error:#}").contains("hush"), "{error:#}");
        }
    }
}
