"""What every layer could become, what that saves and harms, and the choice among it all under a budget."""
