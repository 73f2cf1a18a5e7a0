"""What runs inside SGLang's processes; `upstream` names every place it touches."""
