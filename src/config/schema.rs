//! The JSON Schema of the configuration, and the check of a document against it.
//!
//! The schema comes from the types that are read in the end, so names, ranges and grammars are declared once. The
//! check exists because deserialising stops at the first mistake: this one names them all, with what was given,
//! what is allowed, and the likely meaning of an unknown key. It knows the part of JSON Schema that `schemars`
//! writes for these types, no more.

use serde_json::{Map, Value};

use super::file::File;
use super::problem::{Problem, nearest};
use super::text;
use super::units::Quantity;

/// The schema, ready to be walked.
pub struct ConfigSchema {
    root: Value,
}

/// What a place in the document holds.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    schema: &'a ConfigSchema,
    node: &'a Map<String, Value>,
}

/// `config.schema.json` as it is checked in.
pub fn render() -> String {
    let mut text = serde_json::to_string_pretty(&ConfigSchema::new().root).unwrap_or_default();
    text.push('\n');
    text
}

impl ConfigSchema {
    #[allow(clippy::new_without_default, reason = "it is derived from types, not empty")]
    pub fn new() -> Self {
        let mut root = schemars::schema_for!(File).to_value();
        if let Some(object) = root.as_object_mut() {
            object.insert("title".to_owned(), Value::from("Tidewire configuration"));
        }
        ConfigSchema { root }
    }

    pub fn root(&self) -> Node<'_> {
        self.follow(&self.root)
    }

    /// One app of the list.
    pub fn app(&self) -> Node<'_> {
        self.root().property("apps").map_or(self.root(), Node::items)
    }

    /// Everything in `document` that the schema does not allow.
    pub fn check(&self, document: &Value) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.root().check(document, "", &mut problems);
        problems
    }

    /// The paths of all settings outside of lists: `server.listen`, `limits.max_event_bytes`, `apps`, …
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.root().collect_paths("", &mut paths);
        paths
    }

    /// A `$ref` is followed; its siblings (description, default) are of no interest here.
    fn follow<'a>(&'a self, node: &'a Value) -> Node<'a> {
        static NOTHING: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
        let target = node
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|r| self.root.pointer(r.trim_start_matches('#')));
        Node { schema: self, node: target.unwrap_or(node).as_object().unwrap_or(&NOTHING) }
    }

    /// Sections that have a key of this name, for a key that stands in the wrong one.
    fn homes_of(&self, key: &str) -> Option<String> {
        let app = self.app();
        let replay = app.property("replay");
        let rule = replay.and_then(|replay| replay.property("rules")).map(Node::items);
        let lists = [("apps[]", Some(app)), ("apps[].replay", replay), ("apps[].replay.rules[]", rule)];
        let list = lists.into_iter().find(|(_, node)| node.is_some_and(|node| node.property(key).is_some()));
        if let Some((home, _)) = list {
            return Some(home.to_owned());
        }
        let paths = self.paths();
        let section = paths.iter().filter_map(|p| p.rsplit_once('.')).find(|(_, last)| *last == key);
        section.map(|(section, _)| section.to_owned())
    }
}

impl<'a> Node<'a> {
    pub fn property(self, key: &str) -> Option<Node<'a>> {
        self.properties()?.get(key).map(|node| self.schema.follow(node))
    }

    /// The node at a dotted path.
    pub fn at(self, path: &str) -> Option<Node<'a>> {
        path.split('.').try_fold(self, |node, key| node.property(key))
    }

    pub fn is_section(self) -> bool {
        self.properties().is_some()
    }

    pub fn is_list_of_sections(self) -> bool {
        self.node.contains_key("items") && self.items().is_section()
    }

    /// The JSON value that text from the environment or a flag stands for. Text that does not fit is left as
    /// text, for the check to complain about; where text is wanted nothing is ever re-typed: `00123` stays.
    pub fn read_text(self, given: &str) -> Value {
        if self.allows("array") {
            return Value::from(text::split_list(given));
        }
        if self.allows("string") || !self.constants().is_empty() {
            return Value::from(given);
        }
        if self.allows("boolean") {
            return match given.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Value::from(true),
                "false" | "0" | "no" | "off" => Value::from(false),
                _ => Value::from(given),
            };
        }
        given.parse::<u64>().map_or_else(|_| Value::from(given), Value::from)
    }

    fn properties(self) -> Option<&'a Map<String, Value>> {
        self.node.get("properties")?.as_object()
    }

    fn items(self) -> Node<'a> {
        self.schema.follow(self.node.get("items").unwrap_or(&Value::Null))
    }

    fn allows(self, kind: &str) -> bool {
        match self.node.get("type") {
            Some(Value::String(only)) => only == kind,
            Some(Value::Array(several)) => several.iter().any(|k| k == kind),
            _ => false,
        }
    }

    fn format(self) -> &'a str {
        self.node.get("format").and_then(Value::as_str).unwrap_or_default()
    }

    fn is_secret(self) -> bool {
        matches!(self.format(), "app-secret" | "redis-password" | "redis-url")
    }

    /// The words of an enumeration.
    fn constants(self) -> Vec<&'a str> {
        fn collect<'v>(node: &'v Map<String, Value>, words: &mut Vec<&'v str>) {
            words.extend(node.get("const").and_then(Value::as_str));
            words.extend(
                node.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str),
            );
            for branch in node.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
                branch.as_object().into_iter().for_each(|b| collect(b, words));
            }
        }
        let mut words = Vec::new();
        collect(self.node, &mut words);
        words
    }

    fn collect_paths(self, prefix: &str, paths: &mut Vec<String>) {
        for (key, node) in self.properties().into_iter().flatten() {
            let path = join(prefix, key);
            let node = self.schema.follow(node);
            if node.is_section() { node.collect_paths(&path, paths) } else { paths.push(path) }
        }
    }

    /// Adds everything in `value` that is not allowed here.
    pub fn check(self, value: &Value, at: &str, problems: &mut Vec<Problem>) {
        match value {
            Value::Object(object) if self.is_section() => self.check_object(object, at, problems),
            Value::Array(list) if self.allows("array") => {
                for (i, item) in list.iter().enumerate() {
                    self.items().check(item, &format!("{at}[{i}]"), problems);
                }
            }
            Value::String(word) if !self.constants().is_empty() => self.check_word(word, at, problems),
            Value::String(given) if self.allows("array") => {
                for item in text::split_list(given) {
                    self.check_text(&item, at, problems);
                }
            }
            Value::String(given) if self.allows("string") => self.check_text(given, at, problems),
            Value::Bool(_) if self.allows("boolean") => {}
            Value::Null if self.allows("null") => {}
            Value::Number(number) if self.allows("integer") => {
                let (low, high) = self.range();
                if !number.as_u64().is_some_and(|n| (low..=high).contains(&n)) {
                    problems.push(self.mismatch(value, at));
                }
            }
            _ => problems.push(self.mismatch(value, at)),
        }
    }

    fn check_object(self, object: &Map<String, Value>, at: &str, problems: &mut Vec<Problem>) {
        for (key, value) in object {
            match self.property(key) {
                Some(node) => node.check(value, &join(at, key), problems),
                None => problems.push(Problem::new(join(at, key), self.unknown(key))),
            }
        }
        let required = self.node.get("required").and_then(Value::as_array);
        for key in required.into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(key) {
                problems.push(Problem::new(join(at, key), "is missing"));
            }
        }
    }

    fn check_text(self, given: &str, at: &str, problems: &mut Vec<Problem>) {
        if let Some(quantity) = Quantity::of_format(self.format()) {
            let (low, high) = self.range();
            if !quantity.parse(given).is_some_and(|number| (low..=high).contains(&number)) {
                problems.push(self.mismatch(&Value::from(given), at));
            }
        } else if let Err(why) = text::check(self.format(), given) {
            problems.push(Problem::new(at, why));
        }
    }

    fn check_word(self, word: &str, at: &str, problems: &mut Vec<Problem>) {
        let words = self.constants();
        if !words.contains(&word) {
            problems.push(Problem::new(at, format!("expected {}, got {word:?}", one_of(&words))));
        }
    }

    fn unknown(self, key: &str) -> String {
        let siblings = self.properties().into_iter().flatten().map(|(name, _)| name.as_str());
        if let Some(meant) = nearest(key, siblings) {
            return format!("unknown key, did you mean {meant:?}?");
        }
        match self.schema.homes_of(key) {
            Some(home) => format!("unknown key here, it belongs to {home:?}"),
            None => "unknown key".to_owned(),
        }
    }

    fn mismatch(self, value: &Value, at: &str) -> Problem {
        let got = if self.is_secret() { kind(value).to_owned() } else { shown(value) };
        Problem::new(at, format!("expected {}, got {got}", self.wanted()))
    }

    fn wanted(self) -> String {
        let words = self.constants();
        if !words.is_empty() {
            return one_of(&words);
        }
        if self.is_section() {
            let switch = if self.allows("boolean") { "true, false or " } else { "" };
            return format!("{switch}an object");
        }
        if let Some(quantity) = Quantity::of_format(self.format()) {
            let (low, high) = self.range();
            return quantity.wanted(low, high);
        }
        if self.allows("array") {
            return if self.allows("string") { "a list of texts in quotes" } else { "a list" }.to_owned();
        }
        if self.allows("string") {
            return "text in quotes".to_owned();
        }
        if self.allows("boolean") {
            return "true or false".to_owned();
        }
        match self.range() {
            (low, u64::MAX) => format!("a whole number of at least {low}"),
            (low, high) => format!("a whole number from {low} to {high}"),
        }
    }

    fn range(self) -> (u64, u64) {
        let bound = |name| self.node.get(name).and_then(Value::as_u64);
        let widest = if self.format() == "uint32" { u64::from(u32::MAX) } else { u64::MAX };
        (bound("minimum").unwrap_or(0), bound("maximum").unwrap_or(widest))
    }
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("{w:?}")).collect();
    format!("one of {}", quoted.join(", "))
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().count() > 60 => {
            format!("a text of {} characters", text.chars().count())
        }
        Value::Object(_) | Value::Array(_) => kind(value).to_owned(),
        scalar => scalar.to_string(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
