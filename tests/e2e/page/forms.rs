//! Forms of the page: problems beside the field they are about, currencies of the server, and the search.

use serde_json::json;

use super::{is_content, visit};
use crate::harness::browser::Look;
use crate::harness::{run, run_with};

/// Whether the problem is inside its form and less than a line below the field that it describes.
const IS_BESIDE_ITS_FIELD: &str = "
    const field = document.querySelector('#transfer [name=amount]');
    const problem = document.getElementById(field.getAttribute('aria-describedby'));
    const gap = problem.getBoundingClientRect().top - field.getBoundingClientRect().bottom;
    return problem.closest('form').id === 'transfer' && problem.getAttribute('role') === 'alert'
        && field.getAttribute('aria-invalid') === 'true' && gap >= 0 && gap < 20;";

#[tokio::test]
async fn each_problem_is_beside_the_field_that_it_is_about() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "10").await;
        let other = app.open_wallet("EUR", "0").await;
        let browser = visit(app, Look::Phone).await;
        browser.open(&format!("http://{}/#wallet={wallet}", app.address)).await;
        browser.see("#balance", "10.00 EUR").await;
        browser
            .run("for (const details of document.querySelectorAll('.action')) details.open = true")
            .await;

        browser.write("#transfer [name=to]", "first").await;
        browser.write("#transfer [name=amount]", "1.234").await;
        browser.click("#transfer button").await;
        browser.see("#transfer-problem-to", "To must be").await;
        browser.write("#transfer [name=to]", &other).await;
        browser.click("#transfer button").await;
        browser.see("#transfer-problem-amount", "Amount has more than 2 decimals.").await;
        assert_eq!(browser.run(IS_BESIDE_ITS_FIELD).await, true);
        assert_eq!(browser.text("#transfer-problem-to").await, "", "the first problem is gone");
        browser.assert_readable(Look::Phone, "a form with a problem").await;

        // What is about no field is above the button, which it describes.
        browser.write("#withdraw [name=amount]", "10.01").await;
        browser.click("#withdraw button").await;
        browser.see("#withdraw .problem", "10.00 is available, 10.01 is required.").await;
        let described = "
            const button = document.querySelector('#withdraw button');
            return document.getElementById(button.getAttribute('aria-describedby')).textContent;";
        assert_eq!(browser.run(described).await, "10.00 is available, 10.01 is required.");
        assert_eq!(browser.text("#say").await, "", "the page repeats no problem of a form");
        browser.write("#withdraw [name=amount]", "10").await;
        assert_eq!(browser.text("#withdraw .problem").await, "", "a change removes the problem");
        browser.click("#withdraw button").await;
        browser.see("#say", "Withdrawn. The balance is 0.00 EUR").await;
        is_content(&browser).await;
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn the_currencies_are_those_of_the_server() {
    run_with(&["--currency=POINTS:0", "--default-currency=USD"], async |app| {
        let info = app.get("/wallet/info").await.json();
        let listed = info["currencies"].as_array().unwrap();
        let codes: Vec<_> = listed.iter().map(|currency| currency["code"].clone()).collect();
        let browser = visit(app, Look::Desktop).await;
        browser.see("#found", "No wallets yet").await;

        let offered = browser
            .run("return [...document.querySelector('#open [name=currency]').options].map(({ value }) => value)")
            .await;
        assert_eq!(offered, json!(codes));
        let chosen = "return document.querySelector('#open [name=currency]').value";
        assert_eq!(browser.run(chosen).await, "USD");
        browser.write("#open [name=owner]", "Ada").await;
        browser.run("document.querySelector('#open [name=currency]').value = 'POINTS'").await;
        browser.write("#open [name=initial_balance]", "7").await;
        browser.click("#open button").await;
        browser.see("#balance", "7 POINTS").await;
        assert_eq!(browser.run(chosen).await, "USD", "the form begins anew");

        is_content(&browser).await;
        browser.close().await;
    })
    .await;
}

#[tokio::test]
async fn wallets_are_found_by_their_owner() {
    run(async |app| {
        for owner in ["Ada & Co", "Grace", "Ada & Co"] {
            let body = json!({ "owner": owner, "currency": "EUR" });
            assert_eq!(app.post("/wallet", body).await.status, 201);
        }
        let browser = visit(app, Look::Desktop).await;
        browser.see("#wallets", "Grace").await;

        browser.write("#search [name=owner]", "Ada & Co").await;
        browser.click("#search button").await;
        browser.see("#found", "2 wallets of Ada & Co").await;
        let ids = "return [...document.querySelectorAll('#wallets button')].map((button) => button.dataset.id)";
        assert_eq!(browser.run(ids).await, json!(["1", "3"]));
        browser.write("#search [name=owner]", "Linus").await;
        browser.click("#search button").await;
        browser.see("#found", "No wallet of Linus is found.").await;
        assert_eq!(browser.run(ids).await, json!([]));
        browser.write("#search [name=owner]", " ").await;
        browser.click("#search button").await;
        browser.see("#wallets", "Grace").await;
        assert_eq!(browser.run(ids).await, json!(["1", "2", "3"]));

        is_content(&browser).await;
        browser.close().await;
    })
    .await;
}
