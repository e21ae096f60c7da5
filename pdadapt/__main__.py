"""Where the program begins: signals are looked after before anything is imported that takes its time."""

from pdadapt.runtime.interrupt import Stopped, end, end_when_asked, ignore


def main() -> None:
    """Entry point."""
    end_when_asked()
    try:
        from pdadapt.runtime.printing import close_streams, open_streams

        open_streams()
        try:
            from pdadapt.cli.main import run

            run()
        finally:
            close_streams()
    except Stopped as stopped:
        end(stopped.args[0])
    finally:
        ignore()


if __name__ == "__main__":
    main()
