//! A notice to a user whose order has ended.

use uuid::Uuid;

use crate::exchange::terms::Side;
use crate::ids::SagaId;

/// A notice to a user whose order has ended.
#[derive(Debug, Clone)]
pub struct Notice {
    pub order: SagaId,
    /// Identifier of the notice. Every attempt to send the notice uses the same identifier, so that the recipient can
    /// recognize a repeated message.
    pub reference: Uuid,
    /// E-mail address of the user.
    pub address: String,
    pub first_name: Option<String>,
    pub side: Side,
    pub is_completed: bool,
    /// Reason why the order failed.
    pub reason: Option<String>,
    /// Amounts with their currencies, such as `30.00 EUR`.
    pub fiat: String,
    pub crypto: String,
}

impl Notice {
    pub fn subject(&self) -> String {
        let outcome = if self.is_completed { "is complete" } else { "could not be carried out" };
        format!("Your order {} {outcome}", self.order)
    }

    /// Returns the paragraphs of the message: the greeting, the outcome of the order, and the amount that is now in the
    /// user's wallet.
    fn sentences(&self) -> [String; 3] {
        let Self { order, fiat, crypto, .. } = self;
        let greeting = match &self.first_name {
            Some(name) => format!("Hello {name},"),
            None => "Hello,".to_owned(),
        };
        let order = match self.side {
            Side::Buy => format!("your order {order} to buy {crypto} for {fiat}"),
            Side::Sell => format!("your order {order} to sell {crypto} for {fiat}"),
        };
        let (given, gotten) = match self.side {
            Side::Buy => (fiat, crypto),
            Side::Sell => (crypto, fiat),
        };
        if self.is_completed {
            let outcome = format!("{order} is complete.");
            return [greeting, outcome, format!("{gotten} are in your wallet.")];
        }
        let reason = self.reason.as_deref().unwrap_or("unknown");
        let outcome = format!("{order} could not be carried out: {reason}.");
        [greeting, outcome, format!("{given} are back in your wallet.")]
    }

    pub fn text(&self) -> String {
        self.sentences().join("\n\n") + "\n"
    }

    pub fn html(&self) -> String {
        let paragraphs = self.sentences().map(|sentence| format!("<p>{}</p>", escaped(&sentence)));
        format!("<!doctype html>\n<html lang=\"en\"><body>{}</body></html>\n", paragraphs.concat())
    }
}

/// Escapes a text for HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_user_is_no_markup() {
        let notice = Notice {
            order: SagaId(7),
            reference: Uuid::nil(),
            address: "ada@example.com".to_owned(),
            first_name: Some("<b>Ada</b> & Co".to_owned()),
            side: Side::Buy,
            is_completed: false,
            reason: Some("the order was rejected".to_owned()),
            fiat: "30.00 EUR".to_owned(),
            crypto: "3.00000000 BTC".to_owned(),
        };

        assert_eq!(notice.subject(), "Your order 7 could not be carried out");
        assert!(notice.html().contains("<p>Hello &lt;b&gt;Ada&lt;/b&gt; &amp; Co,</p>"));
        assert!(notice.text().ends_with("30.00 EUR are back in your wallet.\n"));
    }
}
