"""What a network is for: its metrics, its supervised loss, and how its outputs are matched with a teacher's."""
