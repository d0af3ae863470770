"""Takes memory until it is stopped, and says how much it has."""
print("#began", flush=True)
taken = []
for step in range(1, 129):
    taken.append(b"x" * (64 << 20))
    print(step * 64, flush=True)
print("DONE")
