"""Fine-tuning by distillation: the original network is the teacher, and no image needs a label."""
