from pdadapt.cli import main

main()
