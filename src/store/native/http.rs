//! Downloads over HTTP that go on where they stopped.

use super::{Fetch, io_error, with_suffix, write_error};
use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;
use ureq::http::{HeaderMap, StatusCode};

/// A closed network must not keep the next source waiting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest silence within a download.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// Downloads `url` to `fetch.part`, whole when this returns `Ok`. What arrived is kept on failure.
pub(super) fn fetch(fetch: &mut Fetch<'_>, url: &str) -> Result<()> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_resolve(Some(CONNECT_TIMEOUT))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(SILENCE_TIMEOUT))
        .timeout_per_read(Some(SILENCE_TIMEOUT))
        .http_status_as_error(false)
        .accept_encoding("identity")
        .user_agent(concat!("foredraft/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let have = match fs::metadata(&fetch.part) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => return Err(io_error(&fetch.part, &error)),
    };
    match fetch.pinned {
        // All of it arrived before the process ended, and only the hash was not counted.
        Some((bytes, _)) if have == bytes => Ok(()),
        Some((bytes, _)) if have > bytes => transfer(fetch, url, &agent, 0),
        _ => transfer(fetch, url, &agent, have),
    }
}

/// One request, for what is missing after the first `have` bytes, or for everything.
fn transfer(fetch: &mut Fetch<'_>, url: &str, agent: &ureq::Agent, have: u64) -> Result<()> {
    let failed = |received_bytes: u64, reason: String| Error::Download { url: url.to_owned(), reason, received_bytes };
    // Bytes without a pinned hash may be resumed only if the server says that they are still the same file.
    let validator_path = with_suffix(&fetch.part, ".etag");
    let validator = fs::read_to_string(&validator_path).ok().filter(|text| !text.is_empty());
    let resume = have > 0 && (fetch.pinned.is_some() || validator.is_some());
    let mut request = agent.get(url);
    if resume {
        request = request.header("Range", format!("bytes={have}-"));
        if let (None, Some(validator)) = (fetch.pinned, &validator) {
            request = request.header("If-Range", validator);
        }
    }
    let kept = if resume { have } else { 0 };
    let response = request.call().map_err(|error| failed(kept, error.to_string()))?;
    let headers = response.headers();
    let start = match response.status() {
        StatusCode::OK => 0,
        StatusCode::PARTIAL_CONTENT if resume => {
            let range = header(headers, "content-range").unwrap_or_default();
            if !range.starts_with(&format!("bytes {have}-")) {
                return Err(failed(kept, format!("asked for bytes from {have}, the server sends \"{range}\"")));
            }
            have
        }
        // The part is longer than the file: of no use.
        StatusCode::RANGE_NOT_SATISFIABLE if resume => return transfer_anew(fetch, url, agent),
        status => return Err(failed(kept, format!("the server answers {status}"))),
    };
    let length = header(headers, "content-length").and_then(|length| length.parse::<u64>().ok());
    let total = length.and_then(|length| length.checked_add(start));
    if let (Some((expected, _)), Some(total)) = (fetch.pinned, total)
        && total != expected
    {
        return Err(failed(kept, format!("the file there has {total} bytes, expected {expected}")));
    }
    let total = total.or(fetch.pinned.map(|(bytes, _)| bytes));
    if fetch.pinned.is_none() {
        let validator = header(headers, "etag").filter(|etag| !etag.starts_with("W/"));
        let validator = validator.or_else(|| header(headers, "last-modified")).unwrap_or_default();
        fs::write(&validator_path, validator).map_err(|error| write_error(&validator_path, 100, &error))?;
    }
    let received = receive(fetch, url, response.into_body().into_reader(), start, total)?;
    if total.is_some_and(|total| received < total) {
        return Err(failed(received, "the connection was closed early".to_owned()));
    }
    let _ = fs::remove_file(validator_path);
    Ok(())
}

fn transfer_anew(fetch: &mut Fetch<'_>, url: &str, agent: &ureq::Agent) -> Result<()> {
    fs::remove_file(&fetch.part).map_err(|error| io_error(&fetch.part, &error))?;
    transfer(fetch, url, agent, 0)
}

/// Writes a body to the part from byte `start` on and gives the length of the part.
fn receive(fetch: &mut Fetch<'_>, url: &str, mut body: impl Read, start: u64, total: Option<u64>) -> Result<u64> {
    let failed = |received_bytes: u64, reason: String| Error::Download { url: url.to_owned(), reason, received_bytes };
    let path = fetch.part.clone();
    let mut options = File::options();
    if start > 0 {
        options.append(true)
    } else {
        options.write(true).create(true).truncate(true)
    };
    let left = |received: u64| total.unwrap_or(received).saturating_sub(received);
    let mut file = options.open(&path).map_err(|error| write_error(&path, left(start), &error))?;
    let mut received = start;
    let mut buffer = vec![0; 1 << 18];
    loop {
        fetch.report(url, received, total);
        let read = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(received, error.to_string())),
        };
        if fetch.pinned.is_some_and(|(bytes, _)| received + read as u64 > bytes) {
            return Err(failed(received, "the server sends more than the expected bytes".to_owned()));
        }
        file.write_all(&buffer[..read]).map_err(|error| write_error(&path, left(received), &error))?;
        received += read as u64;
    }
    file.sync_all().map_err(|error| write_error(&path, 0, &error))?;
    Ok(received)
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
