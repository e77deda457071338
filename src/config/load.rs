//! Reading the layers and laying them over each other: default, file, environment, flag.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use serde_json::{Map, Value};

use super::doubts::doubts;
use super::environment::{self, Environment};
use super::file::File;
use super::problem::{ConfigError, Problem};
use super::redis::redis_problems;
use super::schema::ConfigSchema;
use super::{AppReplay, Config, DEFAULT_PORT, ServerConfig, StoreKind, replay};

/// Where a configuration is read from. Kept by the server, so that a reload reads the same places. Without `Debug`:
/// the environment holds secrets.
#[derive(Clone, Default)]
pub struct Sources {
    /// `--config`; it must exist.
    pub file: Option<PathBuf>,
    /// Files that are read if nobody named one, the first that exists.
    pub search: Vec<PathBuf>,
    pub environment: Environment,
    pub flags: Vec<Flag>,
}

/// A flag that was given.
#[derive(Clone, Debug)]
pub struct Flag {
    /// `--listen`
    pub name: &'static str,
    /// `server.listen`
    pub path: &'static str,
    pub value: String,
}

/// Who set a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    File,
    Environment(String),
    Flag(&'static str),
}

/// A configuration without problems.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// What works but is probably not meant.
    pub warnings: Vec<String>,
    /// Who set each value that is not a default, by path.
    pub origins: BTreeMap<String, Origin>,
}

/// The document while layers are laid over it.
pub struct Draft {
    pub schema: ConfigSchema,
    document: Value,
    /// `replay` of the built-in app, which is in no list.
    built_in_replay: AppReplay,
    origins: BTreeMap<String, Origin>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Sources {
    /// The process's own environment and the usual files.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<Flag>) -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Sources {
            file,
            search: ["./config.json", "/etc/tidewire/config.json"].map(PathBuf::from).to_vec(),
            environment: std::env::vars_os().filter_map(text).collect(),
            flags,
        }
    }

    /// Reads and checks everything. A problem anywhere means no configuration at all.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let source_file =
            self.find_file().map_err(|problem| ConfigError { source_file: None, problems: vec![problem] })?;
        let fail = |problems| ConfigError { source_file: source_file.clone(), problems };
        let document = match &source_file {
            Some(path) => read_document(path).map_err(|problem| fail(vec![problem]))?,
            None => Value::Object(Map::new()),
        };
        let mut draft = Draft::new(document);
        environment::apply(&self.environment, &mut draft);
        for flag in &self.flags {
            let value = draft.schema.root().at(flag.path).map(|node| node.read_text(&flag.value));
            draft.set(
                flag.path,
                value.unwrap_or_else(|| Value::from(flag.value.as_str())),
                Origin::Flag(flag.name),
            );
        }
        environment::apply_redis_url(&self.environment, &mut draft);
        draft.finish(source_file.clone(), &self.environment).map_err(fail)
    }

    /// Every file that a load looks at, whether or not it exists: what to watch for changes.
    pub fn files(&self) -> Vec<PathBuf> {
        let named =
            self.file.clone().or_else(|| environment::config_file(&self.environment).map(PathBuf::from));
        let mut files = named.map_or_else(|| self.search.clone(), |path| vec![path]);
        files.extend(environment::secret_files(&self.environment).map(PathBuf::from));
        files
    }

    /// The file to read, `None` if there is none.
    pub fn find_file(&self) -> Result<Option<PathBuf>, Problem> {
        let named = self.file.as_ref().map(|path| ("--config", path.clone()));
        let pointed_at =
            || environment::config_file(&self.environment).map(|path| ("TIDEWIRE_CONFIG", path.into()));
        match named.or_else(pointed_at) {
            Some((by, path)) if !path.is_file() => {
                Err(Problem::new(by, format!("there is no file {}", path.display())))
            }
            Some((_, path)) => Ok(Some(path)),
            None => Ok(self.search.iter().find(|path| path.is_file()).cloned()),
        }
    }
}

fn read_document(path: &Path) -> Result<Value, Problem> {
    let text = fs::read_to_string(path).map_err(|why| {
        let text = match why.kind() {
            io::ErrorKind::InvalidData => "is not UTF-8 text".to_owned(),
            _ => format!("cannot be read: {why}"),
        };
        Problem::new("", text)
    })?;
    // Windows editors begin files with a byte order mark.
    let text = text.trim_start_matches('\u{feff}');
    serde_json::from_str(text).map_err(|why| Problem::new("", syntax_error(text, &why)))
}

/// The line and column, and a hint for the mistakes that people make in JSON. Never the text: it holds secrets.
fn syntax_error(text: &str, why: &serde_json::Error) -> String {
    let at = || {
        let line = text.lines().nth(why.line().checked_sub(1)?)?;
        line.as_bytes().get(why.column().saturating_sub(1)).copied()
    };
    let hint = match at() {
        Some(b'/' | b'#') => "; JSON has no comments",
        Some(b'\'') => "; JSON wants double quotes",
        Some(b'}' | b']') if why.to_string().contains("trailing comma") => "; take away the comma before it",
        _ => "",
    };
    format!("is not valid JSON: {why}{hint}")
}

impl Draft {
    fn new(document: Value) -> Self {
        Draft {
            schema: ConfigSchema::new(),
            document,
            built_in_replay: AppReplay::default(),
            origins: BTreeMap::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub fn problem(&mut self, at: &str, text: impl Into<String>) {
        self.problems.push(Problem::new(at, text));
    }

    pub fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }

    /// The apps as far as they are known.
    pub fn apps(&self) -> &[Value] {
        self.document.get("apps").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// What the layers so far say of the setting at a dotted path.
    pub fn at(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(&self.document, |place, key| place.get(key))
    }

    /// Sets the value at a dotted path. Where the file has something else than a section, the check will say so.
    pub fn set(&mut self, path: &str, value: Value, origin: Origin) {
        let mut place = &mut self.document;
        for key in path.split('.') {
            let Value::Object(object) = place else { return };
            place = object.entry(key).or_insert_with(|| Value::Object(Map::new()));
        }
        *place = value;
        self.origins.insert(path.to_owned(), origin);
    }

    /// Appends an app and returns its index.
    pub fn add_app(&mut self) -> usize {
        let Value::Object(object) = &mut self.document else { return 0 };
        let apps = object.entry("apps").or_insert_with(|| Value::Array(Vec::new()));
        let Value::Array(list) = apps else { return 0 };
        list.push(environment::blank_app());
        list.len() - 1
    }

    pub fn set_in_app(&mut self, index: usize, field: &str, value: impl Into<Value>, origin: Origin) {
        let app =
            self.document.get_mut("apps").and_then(|apps| apps.get_mut(index)).and_then(Value::as_object_mut);
        if let Some(app) = app {
            app.insert(field.to_owned(), value.into());
            self.origins.insert(format!("apps[{index}].{field}"), origin);
        }
    }

    /// Sets `replay` of the app that exists when nobody defined one.
    pub fn set_built_in_replay(&mut self, value: Value, origin: Origin) {
        let mut found = Vec::new();
        let node = self.schema.app().property("replay");
        node.into_iter().for_each(|node| node.check(&value, &origin.to_string(), &mut found));
        if found.is_empty() {
            match replay::app_replay(value) {
                Ok(replay) => self.built_in_replay = replay,
                Err(why) => found.push(Problem::new(origin.to_string(), why.to_string())),
            }
        }
        self.problems.extend(found);
        self.origins.insert("apps[0].replay".to_owned(), origin);
    }

    fn finish(mut self, source: Option<PathBuf>, environment: &Environment) -> Result<Loaded, Vec<Problem>> {
        let found = self.schema.check(&self.document);
        self.report(found);
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        self.complete_app_limits();
        let listen_given = self.at("server.listen").is_some();
        let origins = self.all_origins();
        let mut file: File = match serde_path_to_error::deserialize(&self.document) {
            Ok(file) => file,
            Err(why) => return Err(vec![Problem::new(why.path().to_string(), why.inner().to_string())]),
        };
        file.built_in_replay = self.built_in_replay.clone();
        if file.redis.is_on() && self.at("replay.store").is_none() {
            file.replay.store = StoreKind::Redis;
        }
        let mut found = Vec::new();
        let mut config = file.resolve(source, &mut found);
        found.extend(redis_problems(&config, &self.name_of("redis.url")));
        self.report(found);
        self.settle_listen(&mut config, listen_given, environment);
        self.check_tls(&config.server);
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        self.warnings.extend(doubts(&config));
        Ok(Loaded { config, warnings: self.warnings, origins })
    }

    /// Takes over problems of the document, each under the name the operator knows it by.
    fn report(&mut self, found: Vec<Problem>) {
        let renamed = found.into_iter().map(|p| Problem { at: self.name_of(&p.at), ..p });
        let renamed: Vec<Problem> = renamed.collect();
        self.problems.extend(renamed);
    }

    /// `TIDEWIRE_SERVER__LISTEN` instead of `server.listen` if that variable is where the value came from.
    fn name_of(&self, path: &str) -> String {
        let is_within =
            |outer: &str| path.strip_prefix(outer).filter(|r| r.is_empty() || r.starts_with(['.', '[']));
        let closest =
            self.origins.iter().filter_map(|(outer, origin)| Some((outer.len(), origin, is_within(outer)?)));
        match closest.max_by_key(|(length, _, _)| *length) {
            // The items of a list that was given as one text have no index there.
            Some((_, origin, rest))
                if *origin != Origin::File && !path.starts_with("apps") && is_index(rest) =>
            {
                origin.to_string()
            }
            Some((_, origin, rest)) if *origin != Origin::File => format!("{origin}{rest}"),
            _ => path.to_owned(),
        }
    }

    /// An app's limits are the common ones with its own laid over them.
    fn complete_app_limits(&mut self) {
        let common = self.document.get("limits").and_then(Value::as_object).cloned().unwrap_or_default();
        let apps = self.document.get_mut("apps").and_then(Value::as_array_mut);
        for app in apps.into_iter().flatten().filter_map(Value::as_object_mut) {
            let mut limits = common.clone();
            if let Some(Value::Object(own)) = app.remove("limits") {
                limits.extend(own);
            }
            app.insert("limits".to_owned(), Value::Object(limits));
        }
    }

    fn all_origins(&self) -> BTreeMap<String, Origin> {
        let mut origins = self.origins.clone();
        for path in self.schema.paths() {
            if self.at(&path).is_some() {
                origins.entry(path).or_insert(Origin::File);
            }
        }
        origins
    }

    /// A certificate is worth nothing without its key.
    fn check_tls(&mut self, server: &ServerConfig) {
        for (given, missing, path) in [
            (&server.tls_certificate, &server.tls_private_key, "server.tls_private_key"),
            (&server.tls_private_key, &server.tls_certificate, "server.tls_certificate"),
        ] {
            if !given.is_empty() && missing.is_empty() {
                self.problem(path, format!("is missing: {given} needs both, certificate and key"));
            }
        }
    }

    /// The default address depends on whether there is an app to protect, and `PORT` on who named the address.
    fn settle_listen(&mut self, config: &mut Config, given: bool, environment: &Environment) {
        let port = environment::get(environment, "PORT").map(|text| (text, text.parse::<u16>()));
        let stronger =
            matches!(self.origins.get("server.listen"), Some(Origin::Environment(_) | Origin::Flag(_)));
        let port = match port {
            Some((_, Ok(port))) if !stronger => Some(port),
            Some((text, Err(_))) if !stronger => {
                return self.problem("PORT", format!("expected a port from 0 to 65535, got {text:?}"));
            }
            _ => None,
        };
        let listen = &mut config.server.listen;
        if !given {
            let host = if config.default_app { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
            *listen = vec![SocketAddr::new(IpAddr::V4(host), port.unwrap_or(DEFAULT_PORT))];
        } else if let Some(port) = port {
            listen.iter_mut().for_each(|address| address.set_port(port));
            listen.dedup();
        }
        if listen.is_empty() {
            let name = self.name_of("server.listen");
            return self.problem(&name, "names no address");
        }
        if config.default_app
            && let Some(open) = listen.iter().find(|address| !address.ip().is_loopback())
        {
            let text = format!(
                "{open} can be reached from other machines, but no app is configured, and everybody knows the \
                 secret of the built-in one. Set TIDEWIRE_APP_ID, TIDEWIRE_APP_KEY and TIDEWIRE_APP_SECRET, or \
                 write a file with `tidewire default-config > config.json`, or listen on 127.0.0.1"
            );
            let name = self.name_of("server.listen");
            self.problem(&name, text);
        }
    }
}

/// `[0]`
fn is_index(rest: &str) -> bool {
    rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(|n| n.parse::<usize>().is_ok())
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File => f.write_str("file"),
            Origin::Environment(name) => f.write_str(name),
            Origin::Flag(name) => f.write_str(name),
        }
    }
}
