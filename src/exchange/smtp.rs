//! Notifications by e-mail: users get a message, as text and HTML, for each order that has ended.
//!
//! Every attempt to send a message uses the same `Message-ID`, so that recipients can recognize a repeated message.

use std::time::Duration;

use anyhow::{Context, anyhow};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lettre::message::{Mailbox, MultiPart};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use super::notice::Notice;
use super::outside::Notifier;
use crate::error::{Error, Result};
use crate::secret::Secret;

/// Longest time that a command to the mail server may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends mail through an SMTP server.
pub(super) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Mailer {
    /// Creates a mailer from the URL of the mail server: `smtp://`, `smtps://`, or `smtp://…?tls=required` for
    /// STARTTLS.
    pub(super) fn new(server: &Secret, from: &str) -> anyhow::Result<Self> {
        // The cause is dropped, because its text would repeat the URL, which can contain a password.
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(server.reveal())
            .map_err(|_| anyhow!("--smtp-url is not the URL of a mail server, such as smtps://user:password@mail.example.com"))?
            .timeout(Some(TIMEOUT))
            .build();
        let from = from.parse().context("--mail-from is not an address")?;
        Ok(Self { transport, from })
    }

    fn message(&self, notice: &Notice) -> anyhow::Result<Message> {
        let domain = self.from.email.domain();
        let id = format!("<order-{}-{}@{domain}>", notice.order, notice.reference.simple());
        let to = notice.address.parse().context("the address of the user is malformed")?;
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(notice.subject())
            .message_id(Some(id))
            .multipart(MultiPart::alternative_plain_html(notice.text(), notice.html()))?;
        Ok(message)
    }
}

impl Notifier for Mailer {
    fn notify<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<()>> {
        async {
            let message = self.message(notice).map_err(Error::Internal)?;
            let sent = self.transport.send(message).await;
            sent.map(drop).map_err(|cause| Error::Internal(cause.into()))
        }
        .boxed()
    }
}
