//! The schemas that `supersyncctl schema` prints, and what is held against them: outputs of real daemons and commands.
//!
//! They are held more strictly than the schemas ask for: a field that a schema does not know is one that nobody
//! documented.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use jsonschema::Validator;
use serde_json::Value;

/// Fails where `output` is not as the schema says that it names, or has anything that the schema does not tell of.
pub(crate) fn check(output: &Value) {
    static KNOWN: Mutex<BTreeMap<String, Arc<Validator>>> = Mutex::new(BTreeMap::new());
    let name = output["schema"].as_str().unwrap_or("supersync.error/1");
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let validator = Arc::clone(known.entry(name.to_owned()).or_insert_with(|| Arc::new(strict(printed(name)))));
    drop(known);
    let errors: Vec<String> =
        validator.iter_errors(output).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}\nin {output:#}");
}

/// One object a line.
pub(crate) fn check_lines(text: &str) -> Vec<Value> {
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(!lines.is_empty(), "nothing was printed");
    lines.iter().for_each(check);
    lines
}

fn printed(name: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_supersyncctl")).args(["schema", name]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn strict(mut schema: Value) -> Validator {
    close(&mut schema);
    jsonschema::draft202012::new(&schema).expect("a schema")
}

/// Lets objects have no properties but those that are told of, wherever a schema is used as a whole.
fn close(schema: &mut Value) {
    schema["unevaluatedProperties"] = false.into();
    close_parts(schema);
}

fn close_parts(schema: &mut Value) {
    let Some(keywords) = schema.as_object_mut() else { return };
    for (keyword, value) in keywords {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(close),
            ("items", items) => close(items),
            ("$defs", Value::Object(parts)) => parts.values_mut().for_each(close_parts),
            ("oneOf", Value::Array(choices)) => choices.iter_mut().for_each(close_parts),
            _ => {}
        }
    }
}

#[test]
fn every_schema_is_one_and_refuses_what_is_not_as_it_says() {
    let output = Command::new(env!("CARGO_BIN_EXE_supersyncctl")).arg("schema").output().expect("it starts");
    let names = String::from_utf8(output.stdout).expect("text");
    assert!(names.lines().any(|name| name == "supersync.status/1"), "{names}");
    for name in names.lines() {
        let schema = printed(name);
        jsonschema::draft202012::meta::validate(&schema).unwrap_or_else(|error| panic!("{name}: {error}"));
        let validator = jsonschema::draft202012::new(&schema).expect("a schema");
        assert!(!validator.is_valid(&serde_json::json!({ "schema": name })), "{name} takes what tells nothing");
        assert_eq!(schema, printed(name.trim_start_matches("supersync.").trim_end_matches("/1")), "{name}");
    }
}
