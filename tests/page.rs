//! The page in a real browser: what an operator sees, and that nobody's names can do anything there.
//!
//! With `SUPERSYNC_SCREENSHOTS=DIR` pictures of it are kept in `DIR`.

#[path = "http/browser.rs"]
mod browser;
#[path = "control/site.rs"]
#[allow(dead_code)]
mod site;
#[path = "http/watched.rs"]
#[allow(dead_code)]
mod watched;

use std::sync::Arc;

use serde_json::Value;
use supersync::control::{HttpDoor, PeerState, Status};

use browser::Browser;
use site::{Told, half_way, synced};
use watched::Watched;

/// A site that tells `status`, and its page in a browser; `None` where there is no browser.
fn shown(status: Status) -> Option<(Arc<Told>, Watched, Browser)> {
    let Some(mut browser) = Browser::start() else {
        println!("skipped: no chromium here (Debian package chromium)");
        return None;
    };
    let site = Arc::new(Told::new(status));
    let served = Watched::start(Arc::clone(&site));
    browser.screen(1280, 900, false);
    browser.open(&format!("http://{}/", served.address));
    browser.until("document.getElementById('links').children.length > 0");
    Some((site, served, browser))
}

fn text(browser: &mut Browser, id: &str) -> String {
    let text = browser.value(&format!("document.getElementById('{id}').innerText"));
    text.as_str().expect("text").to_owned()
}

#[test]
fn the_page_shows_how_far_the_node_is_and_what_is_wrong() {
    let Some((site, _served, mut browser)) = shown(half_way()) else { return };
    for (id, expected) in [
        ("node", "trader1"),
        ("state", "SYNCING"),
        ("percent", "42.4 %"),
        ("amount", "5.1 GB of 12.0 GB"),
        ("objects", "212 of 500 objects"),
        ("eta", "12 min 55 s left"),
        ("rate-in", "8.9 MB/s"),
        ("problem-list", "exchange2 link 3 (10.1.1.13:7401) is down: connection refused, next try in 8 s"),
        ("map", "▲ degraded, 2 of 3 up"),
        ("links", "exchange1 link 1"),
        ("pulse", "live"),
    ] {
        let found = text(&mut browser, id);
        assert!(found.contains(expected), "{id}: no {expected:?} in {found:?}");
    }
    assert_eq!(browser.value("document.querySelectorAll('#links tr').length"), 6);
    assert_eq!(
        browser.value("document.querySelectorAll('#map rect:not(.under)').length"),
        3,
        "this node and two peers"
    );
    assert!(browser.value("document.title").as_str().is_some_and(|title| title.contains("trader1 SYNCING")));
    // Live: it follows without being loaded again, and by the same rows.
    *site.status.lock().expect("no panic while held") = synced();
    browser.until("document.getElementById('state').innerText.includes('SYNCED')");
    assert!(text(&mut browser, "eta").contains("all is here"));
    assert_eq!(browser.value("document.querySelectorAll('#links tr').length"), 3);
    assert_eq!(browser.value("document.getElementById('problems').hidden"), true);
}

#[test]
fn a_name_is_text_whatever_it_is_made_of() {
    let evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";
    let mut status = half_way();
    status.peers[0].name = evil.to_owned();
    status.peers[0].state = PeerState::Degraded;
    status.peers[0].note = Some(evil.to_owned());
    status.peers[1].links[0].why = evil.to_owned();
    status.problems = vec![format!("{evil}: cannot be fetched")];
    let Some((_site, _served, mut browser)) = shown(status) else { return };
    assert!(text(&mut browser, "problem-list").contains(evil), "as it is written");
    assert!(text(&mut browser, "links").contains(evil));
    assert_eq!(browser.value("document.querySelectorAll('main img, main script').length"), 0);
    assert!(!browser.value("document.title").as_str().expect("text").contains("owned"));
}

#[test]
fn the_page_says_when_the_daemon_is_away_and_comes_back_by_itself() {
    let Some((_site, mut served, mut browser)) = shown(half_way()) else { return };
    let address = served.address;
    served.stop();
    browser.until("document.documentElement.classList.contains('is-away')");
    assert!(text(&mut browser, "away").contains("has not answered for"));
    assert!(text(&mut browser, "node").contains("trader1"), "what was known is still there");
    let mut back = half_way();
    back.node = "trader1-again".to_owned();
    let _served = Watched::serve(HttpDoor::loopback(address).expect("free again"), Arc::new(Told::new(back)));
    browser.until("document.getElementById('node').innerText === 'trader1-again'");
    browser.until("!document.documentElement.classList.contains('is-away')");
}

#[test]
fn the_page_fits_a_phone_and_has_no_errors_of_its_own() {
    let Some((_site, served, mut browser)) = shown(half_way()) else { return };
    for (width, dark) in [(360, true), (360, false), (820, false), (1280, true)] {
        browser.screen(width, 800, dark);
        browser.open(&format!("http://{}/", served.address));
        browser.until("document.getElementById('links').children.length > 0");
        let wide = browser.value("document.documentElement.scrollWidth");
        assert!(wide.as_u64().is_some_and(|wide| wide <= u64::from(width)), "{wide} pixels wide at {width}");
        let back = browser.value("getComputedStyle(document.body).backgroundColor");
        let is_dark = back.as_str().expect("a colour").starts_with("rgb(1");
        assert_eq!(is_dark, dark, "{back}");
        browser.picture(&format!("told-{width}-{}", if dark { "dark" } else { "light" }));
    }
    // What the policy forbids is told to the page.
    let violations: Value = browser.value(
        "new Promise(done => {
            document.addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));
            const evil = document.createElement('script');
            evil.textContent = 'document.title = \"owned\"';
            document.body.append(evil);
            setTimeout(() => done('nothing was forbidden'), 10000);
        })",
    );
    assert_eq!(violations, "script-src-elem", "a script that is put in does not run");
}
