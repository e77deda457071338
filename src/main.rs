//! The `tidewire` command. The life of the server's process is in `cli/serve.rs`.

fn main() -> std::process::ExitCode {
    tidewire::cli::main()
}
