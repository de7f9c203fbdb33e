"""How near a model's samples come to fresh points of their tasks, beside the plug-in and beside the truth itself."""
