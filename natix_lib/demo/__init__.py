"""What a first try needs without data or a hub: drawn streets and a random backbone. Only the commands import it."""
