//! What pages show of records that others have written.

use tempfile::TempDir;

use crate::store::{Batch, Filter, Item, Place, Reader, Record, Retention, Store, TokenCounts};
use crate::web::door::Visitor;

use super::logs::Answer;
use super::overview::{Contents, Period};
use super::{chain, frame, keys, logs, record};

const HOUR: u64 = 498_888;
const NOW_MICROS: u64 = HOUR * 3_600_000_000;

/// The elements of the pages.
const TAGS: [&str; 64] = [
    "!DOCTYPE", "html", "head", "meta", "title", "link", "script", "body", "header", "div", "a",
    "nav", "ul", "li", "p", "form", "button", "main", "footer", "h1", "h2", "h3", "h4", "section",
    "span", "figure", "figcaption", "details", "summary", "table", "caption", "thead", "tbody",
    "tr", "th", "td", "dl", "dt", "dd", "svg", "rect", "text", "line", "polyline", "path",
    "circle", "bdi", "code", "time", "strong", "b", "label", "input", "select", "option",
    "textarea", "article", "pre", "br", "noscript", "fieldset", "legend", "ol", "abbr",
];

const HOSTILE: [&str; 9] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' autofocus onfocus='alert(1)",
    "</title></pre></textarea><iframe src=//example.com>",
    "a\u{202e}gnp.exe\u{200b}\u{2066}\u{1b}[31m\u{0}\r\n",
    "{{7*7}}${7*7}<%= 7 %>",
    "javascript:alert(1)",
    "'; DROP TABLE records; --",
    "%3Cscript%3E",
];

fn stored(items: Vec<Item>) -> (TempDir, Reader) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.db");
    let retention = Retention { max_records: 10_000, max_age_secs: None };
    let mut store = Store::open(&path, retention).unwrap();
    store.push(&[Batch { items, position: None }]).unwrap();
    let reader = Reader::open(&path).unwrap();
    (folder, reader)
}

fn visitor(text: &str) -> Visitor {
    Visitor {
        key: text.to_owned(),
        tenant: text.to_owned(),
        user: Some(text.to_owned()),
        exp_secs: 1,
    }
}

/// A record of which all texts are this one.
fn hostile(text: &str) -> Item {
    let own = || Some(text.to_owned());
    let mut line = serde_json::Map::new();
    for name in ["vkey", "tenant", text] {
        line.insert(name.to_owned(), text.into());
    }
    Item::Record(Box::new(Record {
        ts_micros: NOW_MICROS,
        decision: "deny",
        reason: Some("quota"),
        is_failed: true,
        tenant: own(),
        key: own(),
        user: own(),
        model: own(),
        tool: own(),
        method: own(),
        path: own(),
        code: Some(u64::MAX),
        request_id: own(),
        tokens: Some(TokenCounts { input: u64::MAX, output: u64::MAX, total: u64::MAX }),
        cost: Some(u64::MAX),
        verdict: own(),
        anomaly: own(),
        link: Some(Place {
            chain: text.to_owned(),
            seq: 7,
            prev: String::new(),
            mac: "m".to_owned(),
            host: own(),
        }),
        line: serde_json::Value::Object(line).to_string(),
    }))
}

/// Nothing but the elements of the pages, with nothing inline, and no character that hides or turns others.
#[track_caller]
fn assert_inert(page: &str) {
    for tag in page.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap();
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        assert!(TAGS.contains(&name.trim_end()), "<{tag}>");
        // Values of attributes are between the quotes.
        for attribute in tag.split('"').step_by(2) {
            for name in [" on", " style", " srcdoc"] {
                assert!(!attribute.contains(name), "<{tag}>");
            }
        }
        let links = ["href=\"", "src=\"", "action=\""].map(|name| tag.split_once(name));
        for (_, value) in links.into_iter().flatten() {
            assert!(
                value.starts_with('/') && !value.starts_with("//") || value.starts_with('#'),
                "<{tag}>"
            );
        }
        assert!(!tag.starts_with("script") || tag.contains(" src=\"/"), "<{tag}>");
    }
    let is_odd = |c: char| {
        (c.is_control() && c != '\n')
            || ('\u{200b}'..='\u{200f}').contains(&c)
            || ('\u{202a}'..='\u{202e}').contains(&c)
            || ('\u{2066}'..='\u{2069}').contains(&c)
    };
    // A field shows the reader's own question as it is. Links encode it.
    let texts = page.split('"').step_by(2);
    assert_eq!(texts.flat_map(str::chars).find(|c| is_odd(*c)), None);
}

/// All pages about the records with this text.
fn pages(store: &Reader, text: &str) -> Vec<String> {
    let found = store.records(&Filter { limit: 100, ..Filter::default() }).unwrap();
    let query = format!(
        "user={}&status=%22%3E&limit={0}",
        form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>()
    );
    let periods = [Period::Day, Period::Days(7), Period::Days(90)];
    let overviews = periods.map(|period| Contents::read(store, period, HOUR).unwrap().render());
    let contents = [
        record::render(text, &found.records),
        logs::render(Some(&query), Answer::Bad(text.to_owned())),
        logs::render(Some(&query), Answer::Records(found)),
        chain::Chains::read(store).unwrap().render(),
    ];
    let contents = overviews.iter().chain(&contents);
    let visitor = visitor(text);
    let pages = contents.map(|contents| frame::page(&visitor, "/", "t", contents).into_string());
    pages.chain([frame::login(Some(text)).into_string()]).collect()
}

#[test]
fn nothing_that_others_wrote_becomes_a_part_of_a_page() {
    for text in HOSTILE {
        let finding = Item::Finding("changed", text.to_owned());
        let (_folder, store) = stored(vec![hostile(text), finding]);
        for page in pages(&store, text) {
            assert_inert(&page);
        }
    }
}

#[test]
fn huge_texts_do_not_make_huge_pages() {
    let text = "<\u{202e}".repeat(50_000);
    let (_folder, store) = stored(vec![hostile(&text)]);
    for page in pages(&store, &text) {
        assert_inert(&page);
        assert!(page.len() < 600_000, "{} bytes", page.len());
    }
}

#[test]
fn an_empty_store_says_what_to_do() {
    let (_folder, store) = stored(Vec::new());
    let overview = Contents::read(&store, Period::Days(30), HOUR).unwrap().render().into_string();
    for text in
        ["No requests in this period", "No chain", "Nothing was refused.", "No connections yet"]
    {
        assert!(overview.contains(text), "{text} is not in {overview}");
    }
    let found = store.records(&Filter { limit: 5, ..Filter::default() }).unwrap();
    let log = |query| {
        logs::render(query, Answer::Records(store.records(&Filter::default()).unwrap()))
            .into_string()
    };
    assert!(found.records.is_empty());
    assert!(log(None).contains("There are no records yet."));
    assert!(log(Some("user=x")).contains("No record is like this."));
    let chains = chain::Chains::read(&store).unwrap().render().into_string();
    assert!(chains.contains("How to begin a chain"));
}

#[test]
fn what_is_missing_and_what_is_not_verified_stands_out() {
    let (_folder, store) = stored(vec![hostile("skip")]);
    let overview = Contents::read(&store, Period::Days(30), HOUR).unwrap().render().into_string();
    for text in [
        "Records are missing",
        "7 records are missing.",
        "Not all connections are verified",
        "1 request without verification",
        "<span class=\"badge warn\"><bdi>skip</bdi></span>",
    ] {
        assert!(overview.contains(text), "{text} is not in {overview}");
    }
    let chains = chain::Chains::read(&store).unwrap().render().into_string();
    assert!(chains.contains("records 0 to 6"), "{chains}");
}

#[test]
fn the_log_keeps_the_question_in_its_links_and_its_form() {
    let items = (0..3).map(|_| hostile("acme")).map(|item| match item {
        Item::Record(mut record) => {
            record.link = None;
            Item::Record(record)
        }
        other => other,
    });
    let (_folder, store) = stored(items.collect());
    let found = store.records(&Filter { limit: 2, ..Filter::default() }).unwrap();
    let next = found.next.unwrap();
    let log =
        logs::render(Some("user=acme&limit=2&cursor=9"), Answer::Records(found)).into_string();
    for text in [
        format!("href=\"/logs?user=acme&amp;limit=2&amp;cursor={next}\""),
        "href=\"/logs?user=acme&amp;limit=2\"".to_owned(),
        "href=\"/api/audit/logs?user=acme&amp;limit=2&amp;cursor=9&amp;format=csv\"".to_owned(),
        "name=\"user\" value=\"acme\"".to_owned(),
        "<option value=\"2\" selected>2</option>".to_owned(),
        "2 records before those".to_owned(),
        "href=\"/requests/acme\"".to_owned(),
    ] {
        assert!(log.contains(&text), "{text} is not in {log}");
    }
}

#[test]
fn a_build_without_the_package_says_so_and_has_no_field_for_a_key() {
    let without = keys::render(false).into_string();
    assert!(without.contains("has no JavaScript library") && !without.contains("<textarea"));
    let with = keys::render(true).into_string();
    assert_inert(&with);
    // What has no name is in no form, however it is sent.
    assert!(with.contains("<textarea") && !with.contains(" name=\"") && !with.contains("action="));
}
