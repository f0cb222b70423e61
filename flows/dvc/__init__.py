"""DVC: dvc.yaml, the program, and results that become the checkout's."""
