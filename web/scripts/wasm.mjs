// Finds a cargo that can build for wasm32-unknown-unknown, builds the crate with it and runs wasm-bindgen over the result.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { homedir } from "node:os";
import path from "node:path";

const TARGET = "wasm32-unknown-unknown";
const RUSTFLAGS = ["--cfg", 'getrandom_backend="wasm_js"', "-C", "target-feature=+simd128"];

/** What a command prints, or undefined where it fails or is missing. */
function output(command, args) {
  const result = spawnSync(command, args, { encoding: "utf8" });
  return result.status === 0 ? result.stdout.trim() : undefined;
}

/** Runs a command in front of the user; ends the build where it fails. */
export function run(command, args, options = {}) {
  const result = spawnSync(command, args, { stdio: "inherit", ...options });
  if (result.error) throw new Error(`${command}: ${result.error.message}`);
  if (result.status !== 0) throw new Error(`${path.basename(command)} ${args[0]} failed (status ${result.status})`);
}

/**
 * The toolchain: the one that tests/setup.sh has chosen, else rustup's where it has the target, else one that can build the
 * standard library from its own sources (Debian's rustc-web, cargo-web and rust-web-src; it lies beside rustup's, so it is
 * named by its full path).
 */
function toolchain() {
  const chosen = process.env.FOREDRAFT_WASM_CARGO;
  const libdir = output("rustc", ["--print", "target-libdir", "--target", TARGET]);
  const ready = libdir && existsSync(libdir) && readdirSync(libdir).some((name) => name.startsWith("libcore-"));
  if (!chosen && ready) return { cargo: "cargo", flags: [], env: {} };
  const cargo = chosen ?? "/usr/bin/cargo";
  const rustc = process.env.FOREDRAFT_WASM_RUSTC ?? "/usr/bin/rustc";
  if (chosen && process.env.FOREDRAFT_WASM_BUILD_STD === "0") return { cargo, flags: [], env: { RUSTC: rustc } };
  const sysroot = existsSync(cargo) ? output(rustc, ["--print", "sysroot"]) : undefined;
  if (sysroot && existsSync(path.join(sysroot, "lib/rustlib/src/rust/library/std/Cargo.toml"))) {
    const env = { RUSTC: rustc, RUSTC_BOOTSTRAP: "1", RUSTUP_TOOLCHAIN: undefined };
    return { cargo, flags: ["-Z", "build-std=std,panic_abort"], env };
  }
  throw new Error(
    `no Rust toolchain for ${TARGET}: run \`rustup target add ${TARGET}\`, or on Debian ` +
      "`apt-get install rustc-web cargo-web rust-web-src libstd-rust-web-dev lld-22`",
  );
}

/** wasm-bindgen of exactly the version that Cargo.toml names. */
function bindgen(root) {
  const wanted = /^wasm-bindgen = "=([0-9.]+)"/m.exec(readFileSync(path.join(root, "Cargo.toml"), "utf8"))?.[1];
  const candidates = [process.env.FOREDRAFT_WASM_BINDGEN, "wasm-bindgen", path.join(homedir(), ".cargo/bin/wasm-bindgen")];
  const found = candidates.filter(Boolean).map((command) => [command, output(command, ["--version"])]);
  const match = found.find(([, version]) => version?.split(" ")[1] === wanted);
  if (match) return match[0];
  const others = found.filter(([, version]) => version).map(([command, version]) => `${command} is ${version}`);
  throw new Error(
    `wasm-bindgen ${wanted} is needed${others.length ? ` (${others.join(", ")})` : ""}: ` +
      `run \`cargo install wasm-bindgen-cli --version ${wanted}\``,
  );
}

/** Builds the wasm of a crate of the workspace, and its glue, into `outDir`: `NAME.js`, `NAME_bg.wasm` and their types. */
export function buildWasm({ root, outDir, profile, crate }) {
  const tool = bindgen(root);
  const { cargo, flags, env } = toolchain();
  const targetDir = path.resolve(root, process.env.FOREDRAFT_WASM_TARGET_DIR ?? "target/wasm");
  const build = ["rustc", "--locked", "--package", crate, "--lib", "--crate-type", "cdylib", "--target", TARGET, "--profile", profile, ...flags];
  const cargoEnv = { ...process.env, ...env, CARGO_TARGET_DIR: targetDir, CARGO_ENCODED_RUSTFLAGS: RUSTFLAGS.join("\x1f") };
  run(cargo, build, { cwd: root, env: cargoEnv });
  const name = crate.replaceAll("-", "_");
  const wasm = path.join(targetDir, TARGET, profile, `${name}.wasm`);
  const strip = profile === "published" ? ["--remove-name-section", "--remove-producers-section"] : [];
  run(tool, ["--target", "web", "--out-dir", outDir, "--out-name", name, ...strip, wasm]);
}
