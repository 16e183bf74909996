//! The client libraries: installed once under `target/interop`, pinned, reused by later runs.
//!
//! A tool that is missing and cannot be installed is a failure that says what to install; it is
//! never a reason to skip a test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// amqplib depends on no other package.
const AMQPLIB: &str = "amqplib@2.3.1";

/// The folder of the client programs.
pub(crate) fn programs() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/programs"))
}

/// The interpreter that has pika 0.13.1.
pub(crate) fn python_pika013() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| virtual_environment("pika013", "pika013/requirements.txt"))
}

/// The interpreter that has the current Python clients.
pub(crate) fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| virtual_environment("python", "requirements.txt"))
}

/// The folder of node modules that has amqplib.
pub(crate) fn node_modules() -> &'static Path {
    static MODULES: OnceLock<PathBuf> = OnceLock::new();
    MODULES.get_or_init(|| {
        let folder = installed("node", AMQPLIB, |folder| {
            require("node", "nodejs");
            require("npm", "npm");
            fs::create_dir_all(folder).unwrap();
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", "--no-save", AMQPLIB, "--prefix"]);
            run(npm.arg(folder), "the npm registry must be reachable");
        });
        folder.join("node_modules")
    })
}

/// Makes sure that rabbitmq-c's command line tools are there.
pub(crate) fn require_amqp_tools() {
    static TOOLS: OnceLock<()> = OnceLock::new();
    TOOLS.get_or_init(|| {
        installed("amqp-tools", "any version", |folder| {
            require("amqp-publish", "amqp-tools");
            fs::create_dir_all(folder).unwrap();
        });
        // The mark may be older than the system.
        require("amqp-publish", "amqp-tools");
    });
}

/// A new, empty folder of this run.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let folder = root().join(format!("run-{}", std::process::id())).join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// `target/interop`, beside cargo's own folder for integration tests.
fn root() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp");
    target.join("interop")
}

/// Runs `install` unless this folder already holds just these `versions`; one process at a time.
fn installed(name: &str, versions: &str, install: impl FnOnce(&Path)) -> PathBuf {
    fs::create_dir_all(root()).unwrap();
    let lock = File::create(root().join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    let folder = root().join(name);
    let mark = folder.join("installed.txt");
    if fs::read_to_string(&mark).is_ok_and(|text| text == versions) {
        return folder;
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    install(&folder);
    fs::write(mark, versions).unwrap();
    folder
}

/// A Python environment with the packages of one requirements file.
fn virtual_environment(name: &str, requirements: &str) -> PathBuf {
    let requirements = programs().join(requirements);
    let versions = fs::read_to_string(&requirements).unwrap();
    let folder = installed(name, &versions, |folder| {
        require("python3", "python3");
        let mut check = Command::new("python3");
        check.args(["-c", "import sys; assert sys.version_info >= (3, 11), sys.version"]);
        run(&mut check, "the tests need Python 3.11 or later as `python3`");
        create_environment(folder);
        let mut pip = Command::new(folder.join("bin/pip"));
        pip.args(["install", "--quiet", "--requirement"]).arg(&requirements);
        run(&mut pip, "the Python package index must be reachable");
    });
    folder.join("bin/python")
}

/// Debian keeps `venv` in a package of its own.
fn create_environment(folder: &Path) {
    let mut create = Command::new("python3");
    create.args(["-m", "venv"]).arg(folder).stdout(Stdio::null());
    if !create.status().is_ok_and(|status| status.success()) {
        install_debian_package("python3-venv");
        run(&mut create, "install python3-venv");
    }
}

/// Makes sure that `program` can be run, by installing its Debian package if need be.
fn require(program: &str, package: &str) {
    if !found(program) {
        install_debian_package(package);
        assert!(found(program), "the package {package} is installed, but has no {program}");
    }
}

fn found(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(program).is_file())
}

fn install_debian_package(package: &str) {
    // Two processes at the same time would meet dpkg's lock.
    let lock = File::create(root().join("apt.lock")).unwrap();
    lock.lock().unwrap();
    let user = Command::new("id").arg("-u").output().expect("id is there");
    let root = String::from_utf8_lossy(&user.stdout).trim() == "0";
    assert!(
        root && found("apt-get"),
        "the interop tests need {package}; install it: apt-get install {package}"
    );
    let hint = format!("install {package} by hand");
    let mut update = Command::new("apt-get");
    run(update.args(["update", "--quiet"]), &hint);
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--quiet", "--no-install-recommends", package]);
    run(install.env("DEBIAN_FRONTEND", "noninteractive"), &hint);
}

fn run(command: &mut Command, hint: &str) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("setting up the clients: {command:?}: {error}; {hint}"));
    assert!(
        output.status.success(),
        "setting up the clients: {command:?} failed; {hint}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
