//! The JSON schemas (2020-12) of all that is documented as JSON, as `supersyncctl schema` prints them.
//!
//! They describe what this version writes. A reader that holds answers of a later version against them finds fields
//! that it does not know, which the schemas allow: they change by addition only, like what they describe.

use serde_json::Value;

/// Each schema's name, and its text in the repository.
const ALL: [(&str, &str); 12] = [
    ("supersync.status/1", include_str!("schema/status-1.json")),
    ("supersync.links/1", include_str!("schema/links-1.json")),
    ("supersync.why-slow/1", include_str!("schema/why-slow-1.json")),
    ("supersync.objects/1", include_str!("schema/objects-1.json")),
    ("supersync.inventory/1", include_str!("schema/inventory-1.json")),
    ("supersync.verify/1", include_str!("schema/verify-1.json")),
    ("supersync.reload/1", include_str!("schema/reload-1.json")),
    ("supersync.pause/1", include_str!("schema/pause-1.json")),
    ("supersync.drain/1", include_str!("schema/drain-1.json")),
    ("supersync.transfer/1", include_str!("schema/transfer-1.json")),
    ("supersync.doctor/1", include_str!("schema/doctor-1.json")),
    ("supersync.error/1", include_str!("schema/error-1.json")),
];

/// The names of all schemas.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}

/// The schema of this name, which may be written without `supersync.` and number. It stands for itself: a schema of
/// which it uses parts is within it.
pub fn find(name: &str) -> Option<Value> {
    let short = |full: &'static str| full.trim_start_matches("supersync.").trim_end_matches("/1");
    let (_, text) = ALL.iter().find(|(full, _)| *full == name || short(full) == name)?;
    let mut schema = parse(text);
    let (_, status) = ALL[0];
    if text.contains("\"urn:supersync:status:1#") {
        schema["$defs"]["status"] = parse(status);
    }
    Some(schema)
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("the tests read every schema")
}
