"""x"""
def write(x): pass
