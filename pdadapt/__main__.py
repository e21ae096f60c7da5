"""Where the program begins: signals are looked after before anything is imported that takes its time."""

from pdadapt.runtime.interrupt import Stopped, exit_at_once, ignore_signals, install_signal_handlers


def main() -> None:
    """Entry point."""
    install_signal_handlers()
    try:
        from pdadapt.runtime.printing import close_streams, open_streams

        open_streams()
        try:
            from pdadapt.cli.main import run

            run()
        finally:
            close_streams()
    except Stopped as stopped:
        exit_at_once(stopped.args[0])
    finally:
        ignore_signals()


if __name__ == "__main__":
    main()
