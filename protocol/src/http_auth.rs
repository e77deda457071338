//! Authentication of REST requests: the canonical string and its signature (4.2 to 4.4).

use std::borrow::Cow;

use md5::{Digest, Md5};
use percent_encoding::percent_decode_str;

use crate::SigningKey;
use crate::json::push_string;

/// A request whose clock differs by this much is too old or too new.
pub const MAX_CLOCK_SKEW_SECONDS: u64 = 600;
const VERSION: &str = "1.0";
const SIGNATURE: &str = "auth_signature";

/// The query of a REST request, in canonical order.
///
/// Keys are percent-decoded and lower-cased. Of a repeated key the last value counts, in the signature as well
/// as for the reader; only `key[]` may repeat, as Ruby signs arrays. PHP sends an array as `key[0]`, `key[1]`
/// and signs the values joined by commas, so such keys are joined to one `key`.
#[derive(Clone, Debug, Default)]
pub struct ApiQuery<'a> {
    parameters: Vec<Parameter<'a>>,
}

#[derive(Clone, Debug)]
struct Parameter<'a> {
    key: Cow<'a, str>,
    /// As it came, for the second reading of `+`.
    raw: Cow<'a, str>,
    value: Cow<'a, str>,
    /// Came as `key[0]`.
    indexed: bool,
}

impl<'a> ApiQuery<'a> {
    /// `raw_query` is what follows the `?`, undecoded.
    pub fn parse(raw_query: &'a str) -> Self {
        let pairs = raw_query.split('&').filter(|pair| !pair.is_empty());
        let mut parameters: Vec<_> = pairs.map(Parameter::parse).collect();
        // Stable: the elements of an array stay in order, and the last duplicate stays last.
        parameters.sort_by(|a, b| a.key.cmp(&b.key));
        parameters.dedup_by(|later, kept| kept.absorbs(later));
        Self { parameters }
    }

    /// The decoded value of a parameter; `name` in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|parameter| parameter.key == name).map(|parameter| &*parameter.value)
    }

    pub fn auth_key(&self) -> Option<&str> {
        self.get_filled("auth_key")
    }

    fn get_filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// True when `+` could have meant a space to whoever wrote the query.
    fn has_plus(&self) -> bool {
        self.parameters.iter().any(|parameter| parameter.raw.contains('+'))
    }
}

impl<'a> Parameter<'a> {
    fn parse(pair: &'a str) -> Self {
        let (key, raw) = pair.split_once('=').unwrap_or((pair, ""));
        let mut key = decode(key);
        if key.contains(|character: char| character.is_ascii_uppercase()) {
            key = key.to_ascii_lowercase().into();
        }
        let indexed_name = indexed_array_name(&key).map(str::len);
        if let Some(length) = indexed_name {
            key.to_mut().truncate(length);
        }
        Self { key, raw: raw.into(), value: decode(raw), indexed: indexed_name.is_some() }
    }

    /// Takes over the next parameter of the sorted query where both are one to the signer.
    fn absorbs(&mut self, later: &mut Self) -> bool {
        if self.key != later.key || self.key.ends_with("[]") {
            return false;
        }
        if self.indexed && later.indexed {
            for (list, element) in [(&mut self.raw, &later.raw), (&mut self.value, &later.value)] {
                let list = list.to_mut();
                list.push(',');
                list.push_str(element);
            }
        } else {
            std::mem::swap(self, later);
        }
        true
    }
}

/// `key` of `key[0]`.
fn indexed_array_name(key: &str) -> Option<&str> {
    let (name, index) = key.strip_suffix(']')?.rsplit_once('[')?;
    (!index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}

/// Percent-decodes; a `+` stays a `+`.
fn decode(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

/// How a literal `+` of the wire is read. SDKs that form-encode mean a space by it (4.3).
#[derive(Clone, Copy, PartialEq)]
enum Plus {
    Literal,
    Space,
}

/// The text that a request signs, with `path` as the client signed it: from `/apps/…` on and undecoded.
pub fn canonical_string(method: &str, path: &str, query: &ApiQuery<'_>) -> String {
    canonical(method, path, query, Plus::Literal)
}

fn canonical(method: &str, path: &str, query: &ApiQuery<'_>, plus: Plus) -> String {
    let mut text = method.to_ascii_uppercase();
    text.push('\n');
    text.push_str(path);
    let mut separator = '\n';
    for Parameter { key, raw, value, .. } in
        query.parameters.iter().filter(|parameter| parameter.key != SIGNATURE)
    {
        text.push(separator);
        separator = '&';
        text.push_str(key);
        text.push('=');
        match plus {
            Plus::Literal => text.push_str(value),
            Plus::Space => text.push_str(&decode(&raw.replace('+', " "))),
        }
    }
    if separator == '\n' {
        text.push(separator);
    }
    text
}

/// Checks a request in the order of the specification (4.4, rows 6 to 10).
///
/// The caller has found the app by `auth_key` and passes the key's secret. `raw_path` is the undecoded path
/// without a deployment prefix.
pub fn verify(
    method: &str,
    raw_path: &str,
    query: &ApiQuery<'_>,
    body: &[u8],
    key: &SigningKey,
    now_unix_seconds: i64,
) -> Result<(), AuthFailure> {
    check_version(query)?;
    check_timestamp(query, now_unix_seconds)?;
    verify_body(query, body)?;
    check_signature(method, raw_path, query, key)
}

/// Checks all of a request but its body, which the signature covers by its hash: a body that nobody signed need
/// not be read. To be followed by [`verify_body`].
pub fn verify_head(
    method: &str,
    raw_path: &str,
    query: &ApiQuery<'_>,
    key: &SigningKey,
    now_unix_seconds: i64,
) -> Result<(), AuthFailure> {
    check_version(query)?;
    check_timestamp(query, now_unix_seconds)?;
    check_signature(method, raw_path, query, key)
}

fn check_version(query: &ApiQuery<'_>) -> Result<(), AuthFailure> {
    match query.get_filled("auth_version") {
        Some(VERSION) => Ok(()),
        Some(_) => Err(AuthFailure::VersionUnsupported),
        None => Err(AuthFailure::VersionMissing),
    }
}

fn check_timestamp(query: &ApiQuery<'_>, now: i64) -> Result<(), AuthFailure> {
    let given = query.get("auth_timestamp").and_then(|text| text.parse::<i64>().ok());
    let given = given.ok_or(AuthFailure::TimestampMissing)?;
    if given.abs_diff(now) < MAX_CLOCK_SKEW_SECONDS {
        Ok(())
    } else {
        Err(AuthFailure::TimestampExpired { given: iso_8601(given), now: iso_8601(now) })
    }
}

/// Checks that the body is the one whose hash was signed (4.4, row 9).
///
/// A hash that is present must be right even where none is needed: Python signs one with every GET.
pub fn verify_body(query: &ApiQuery<'_>, body: &[u8]) -> Result<(), AuthFailure> {
    match query.get_filled("body_md5") {
        None if body.is_empty() => Ok(()),
        None => Err(AuthFailure::BodyHashMissing),
        Some(given) if given.eq_ignore_ascii_case(&hex::encode(Md5::digest(body))) => Ok(()),
        Some(_) => Err(AuthFailure::BodyHashDiffers),
    }
}

/// SDKs sign before they encode, and encode in different ways. Trying each reading of the request is safe:
/// every one needs a valid signature.
fn check_signature(
    method: &str,
    raw_path: &str,
    query: &ApiQuery<'_>,
    key: &SigningKey,
) -> Result<(), AuthFailure> {
    let given = query.get_filled(SIGNATURE).ok_or(AuthFailure::SignatureMissing)?;
    let expected = canonical_string(method, raw_path, query);
    if key.verify_hex(&[expected.as_bytes()], given) {
        return Ok(());
    }
    let decoded_path = decode(raw_path);
    let paths = [Some(raw_path), raw_path.contains('%').then_some(&*decoded_path)];
    let readings = [Some(Plus::Literal), query.has_plus().then_some(Plus::Space)];
    for path in paths.into_iter().flatten() {
        for plus in readings.into_iter().flatten() {
            let is_first_try = path == raw_path && plus == Plus::Literal;
            if !is_first_try && key.verify_hex(&[canonical(method, path, query, plus).as_bytes()], given) {
                return Ok(());
            }
        }
    }
    Err(AuthFailure::Signature { expected, given: given.to_owned() })
}

/// Why a REST request is not authentic. Displays as the body of the answer, without its newline; the texts are
/// those of the hosted service where they are known. The first three are found by the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthFailure {
    #[error("Missing parameter: auth_key")]
    KeyMissing,
    #[error("Unknown auth_key")]
    KeyUnknown,
    #[error("The auth_key does not belong to this app")]
    KeyOfOtherApp,
    #[error("Version required")]
    VersionMissing,
    #[error("Version not supported")]
    VersionUnsupported,
    #[error("Timestamp required")]
    TimestampMissing,
    #[error(
        "Timestamp expired: Given timestamp ({given}) not within {MAX_CLOCK_SKEW_SECONDS}s of server time ({now})"
    )]
    TimestampExpired { given: String, now: String },
    #[error("Missing parameter: body_md5 (required when the request has a body)")]
    BodyHashMissing,
    #[error("Invalid body_md5: it is not the MD5 of the request body")]
    BodyHashDiffers,
    #[error("Missing parameter: auth_signature")]
    SignatureMissing,
    #[error(
        "Invalid signature: you should have sent HmacSHA256Hex({}, your_secret_key), but you sent {}",
        quoted(expected),
        quoted(given)
    )]
    Signature { expected: String, given: String },
}

impl AuthFailure {
    /// 401 for all of them: Java, Ruby and Python raise an authentication error on it (4.4).
    pub fn status(&self) -> u16 {
        401
    }

    pub fn text(&self) -> String {
        self.to_string()
    }
}

/// On one line, as the hosted service shows it: the newlines of the string to sign become `\n`.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 8);
    push_string(&mut quoted, text);
    quoted
}

/// `2023-11-14T22:13:20Z`
fn iso_8601(unix_seconds: i64) -> String {
    const SECONDS_PER_DAY: i64 = 86_400;
    let (year, month, day) = civil_from_days(unix_seconds.div_euclid(SECONDS_PER_DAY));
    let second = unix_seconds.rem_euclid(SECONDS_PER_DAY);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The Gregorian date of a day since 1970-01-01. Counts in eras of 400 years that start on 1 March, so that
/// the leap day is the last of its year (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    const DAYS_PER_ERA: i64 = 146_097;
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(DAYS_PER_ERA), days.rem_euclid(DAYS_PER_ERA));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests;
